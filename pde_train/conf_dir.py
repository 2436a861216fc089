"""Where the Hydra configuration lies: inside an installed wheel, or beside the package in a checkout."""

from pathlib import Path


def conf_dir() -> Path:
    """The folder that holds config.yaml and the groups."""
    package = Path(__file__).parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"

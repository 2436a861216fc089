"""The folder of the Hydra configuration, inside a wheel or beside the package in a checkout, and what it contains."""

from pathlib import Path


def conf_dir() -> Path:
    """The folder with `config.yaml` and the groups."""
    package = Path(__file__).parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def groups() -> list[str]:
    """The names of the groups of which every configuration has a choice."""
    return sorted(f.name for f in conf_dir().iterdir() if f.is_dir() and f.name not in ("hydra", "experiment"))


def choices(group: str) -> list[str]:
    """The names of the choices of a group that come with the package."""
    folder = conf_dir() / group
    return sorted(str(f.relative_to(folder).with_suffix("")) for f in folder.rglob("*.yaml"))

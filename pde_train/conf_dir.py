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


def named_groups() -> list[str]:
    """The groups that a command may name: those of every configuration, and `experiment`."""
    return [*groups(), "experiment"]


def choices(group: str, *folders: Path) -> list[str]:
    """The names of the choices of a group in some folders of configurations; by default those of the package."""
    found = [(folder / group, file) for folder in folders or (conf_dir(),) for file in (folder / group).rglob("*.yaml")]
    return sorted({str(file.relative_to(folder).with_suffix("")) for folder, file in found})

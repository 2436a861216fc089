"""The direction of dependencies, from the import statements themselves."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import pde_train

ROOT = Path(pde_train.__file__).parent

GROUND = {"errors", "derivatives", "geometry", "memory", "singular_values"}
SCIENCE = GROUND | {
    "differentiators",
    "entropy",
    "linear_system",
    "models",
    "pdes",
    "problem",
    "residuals",
    "samplers",
    "spectra",
}
ALLOWED = {  # what each module or folder may import from the package
    "errors": set(),
    "derivatives": set(),
    "geometry": {"derivatives", "errors"},
    "memory": {"errors"},
    "progress": set(),
    "conf_dir": set(),
    "help": {"conf_dir", "errors"},
    "cache": set(),
    "run_folder": {"errors"},
    "singular_values": {"errors"},
    "plots": set(),
    "entropy": GROUND,
    "spectra": GROUND,
    "differentiators": GROUND,
    "pdes": GROUND | {"domains", "references"},
    "references": {"cache", "errors"},
    "samplers": GROUND,
    "models": GROUND,
    "optimizers": GROUND,
    "schedules": GROUND,
    "weighting": GROUND | {"problem", "residuals"},
    "residuals": GROUND | {"differentiators", "pdes"},
    "residual_checks": GROUND | {"differentiators", "pdes", "residuals"},
    "linear_system": GROUND | {"differentiators", "pdes", "residuals"},
    "problem": GROUND | {"differentiators", "models", "pdes", "residual_checks", "residuals", "samplers", "spectra"},
    "tracking": GROUND | {"entropy", "run_folder"},
    "diagnostics": SCIENCE | {"progress", "tracking"},
    "training": SCIENCE
    | {"cache", "diagnostics", "optimizers", "progress", "run_folder", "schedules", "tracking", "weighting"},
    "methods": SCIENCE
    | {"diagnostics", "optimizers", "progress", "run_folder", "schedules", "tracking", "training", "weighting"},
    "instantiate": {"errors"},
    "guards": {"errors", "instantiate", "tracking"},
    "schema": {"conf_dir", "errors", "instantiate", "tracking"},
    "overrides": set(),
    "experiment": SCIENCE | {"diagnostics", "instantiate", "methods", "schema", "tracking", "training"},
    "runs": SCIENCE
    | {
        "diagnostics",
        "experiment",
        "instantiate",
        "methods",
        "overrides",
        "plots",
        "progress",
        "run_folder",
        "tracking",
        "training",
    },
    "domains": {"derivatives", "errors", "geometry"},
    "sweeps": GROUND
    | {
        "entropy",
        "experiment",
        "guards",
        "instantiate",
        "overrides",
        "plots",
        "progress",
        "run_folder",
        "runs",
        "schema",
        "tracking",
        "training",
    },
    "status": {"errors", "overrides", "run_folder", "sweeps"},
    "sync": {"errors", "run_folder", "tracking"},
    "study": {"differentiators", "errors", "guards", "plots", "runs", "sync", "tracking"},
    "report": {"study"},
    "figures": {"errors", "run_folder", "runs", "sweeps"},
    "api": SCIENCE
    | {
        "conf_dir",
        "experiment",
        "guards",
        "instantiate",
        "run_folder",
        "runs",
        "status",
        "sweeps",
        "tracking",
        "training",
    },
    "cli": {
        "conf_dir",
        "errors",
        "guards",
        "help",
        "instantiate",
        "overrides",
        "progress",
        "run_folder",
        "runs",
        "schema",
        "tracking",
    },
}
HYDRA = {
    "api",
    "cli",
    "experiment",
    "guards",
    "help",
    "instantiate",
    "overrides",
    "runs",
    "schema",
    "sweeps",
    "__main__",
}


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@cache
def rooms() -> dict[str, set[str]]:
    """Everything that each module or folder of the package imports."""
    found: dict[str, set[str]] = {}
    for file in ROOT.rglob("*.py"):
        room = file.relative_to(ROOT).parts[0].removesuffix(".py")
        found.setdefault(room, set()).update(imports(file))
    return found


def test_no_room_imports_one_above_it() -> None:
    for room, allowed in ALLOWED.items():
        used = {name.split(".")[1] for name in rooms()[room] if name.startswith("pde_train.")}
        assert used <= allowed | {room}, (room, used - allowed)


def test_every_room_has_a_rule() -> None:
    assert set(rooms()) - {"conf"} == set(ALLOWED) | {"__init__", "__main__"}


def test_libraries_stay_in_their_rooms() -> None:
    homes = {"hydra": HYDRA, "omegaconf": HYDRA, "mlflow": {"tracking"}, "lightning": {"methods", "training"}}
    homes["optuna"] = {"sweeps"}
    for room, used in rooms().items():
        for library, home in homes.items():
            assert room in home or not any(name.split(".")[0] == library for name in used), (room, library)


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("pde_train.study.parts", {"torch", "lightning"}),
        ("pde_train.study.report", {"torch", "lightning"}),
        ("pde_train.tracking.delivery", {"torch", "lightning"}),
        ("pde_train.sweeps.stacked_launcher, pde_train.methods.gradient_descent", {"lightning"}),
        ("pde_train.training.module", {"scipy.signal"}),
    ],
)
def test_what_takes_seconds_is_loaded_where_it_is_used(module: str, without: set[str]) -> None:
    """Not even through what they import; a whole report is asked in test_study.py."""
    program = f"import sys, {module}; print(*sorted({without} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == []


def test_pdes_and_differentiators_do_not_know_each_other() -> None:
    for file in (ROOT / "pdes").glob("*.py"):
        assert not any("differentiators" in name for name in imports(file))
    for file in (ROOT / "differentiators").glob("*.py"):
        assert not any(name.startswith("pde_train.pdes") for name in imports(file))

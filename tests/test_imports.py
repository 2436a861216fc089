"""The direction of dependencies, from the import statements themselves."""

import ast
from pathlib import Path

import pde_train

ROOT = Path(pde_train.__file__).parent

GROUND = {"errors", "derivatives", "geometry", "progress"}
ALLOWED = {  # what each room may import from the package
    "errors": set(),
    "derivatives": set(),
    "geometry": {"derivatives", "errors"},
    "progress": set(),
    "memory": {"errors"},
    "compiling": {"errors"},
    "conf_dir": set(),
    "entropy": GROUND,
    "differentiators": GROUND,
    "pdes": GROUND,
    "samplers": GROUND,
    "models": GROUND | {"memory"},
    "optimizers": GROUND,
    "spectra": GROUND,
    "results": GROUND,
    "claim": set(),
    "sync": {"errors", "results", "tracking"},
    "status": {"errors", "sweeps"},
    "provenance": set(),
    "residuals": GROUND | {"differentiators", "pdes"},
    "problem": GROUND | {"differentiators", "memory", "pdes", "residuals", "samplers", "spectra"},
    "tracking": GROUND | {"claim", "results"},
    "record": {"entropy", "spectra", "tracking"},
    "comparison": GROUND | {"differentiators", "problem", "residuals", "spectra"},
    "audit": GROUND | {"differentiators", "problem"},
    "flags": set(),
    "diagnostics": GROUND | {"comparison", "differentiators", "problem", "record", "spectra"},
    "methods": GROUND | {"compiling", "diagnostics", "memory", "problem", "record", "residuals", "results", "spectra"},
    "figures": GROUND | {"entropy", "problem"},
    "table": {"results"},
    "artifacts": {"entropy", "figures", "problem", "record", "table"},
    "report": GROUND | {"differentiators", "figures", "provenance", "sync", "tracking"},
    "study": {"errors", "report", "trust"},
    "sweeps": GROUND
    | {"claim", "schema", "entropy", "figures", "provenance", "results", "stack", "table", "tracking", "trust"},
}
HYDRA = {"cli", "runs", "stack", "sweeps", "trust", "schema", "experiment", "__main__"}


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def rooms() -> dict[str, set[str]]:
    """Everything that each module or folder of the package imports."""
    found: dict[str, set[str]] = {}
    for file in ROOT.rglob("*.py"):
        room = file.relative_to(ROOT).parts[0].removesuffix(".py")
        found.setdefault(room, set()).update(imports(file))
    return found


def test_no_room_imports_one_above_it():
    for room, allowed in ALLOWED.items():
        used = {name.split(".")[1] for name in rooms()[room] if name.startswith("pde_train.")}
        assert used <= allowed | {room}, (room, used - allowed)


def test_every_room_has_a_rule():
    above = {"__init__", "__main__", "cli", "trust", "schema", "experiment", "runs", "stack"}
    assert set(rooms()) - {"conf"} == set(ALLOWED) | above


def test_libraries_stay_in_their_rooms():
    homes = {"hydra": HYDRA, "omegaconf": HYDRA, "mlflow": {"tracking"}, "lightning": {"methods"}}
    for room, used in rooms().items():
        for library, home in homes.items():
            assert room in home or not any(name.split(".")[0] == library for name in used), (room, library)


def test_pdes_and_differentiators_do_not_know_each_other():
    for file in (ROOT / "pdes").glob("*.py"):
        assert not any("differentiators" in name for name in imports(file))
    for file in (ROOT / "differentiators").glob("*.py"):
        assert not any(name.startswith("pde_train.pdes") for name in imports(file))

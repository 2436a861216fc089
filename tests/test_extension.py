"""A PDE, a model and a differentiator from outside the package: a Python file and a YAML file each, nothing else."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import forked
import pytest
from fixtures import Compose

from pde_train.errors import UsageError
from pde_train.experiment import build
from pde_train.instantiate import build_group

PYTHON = {
    "heated_rod": """
from dataclasses import dataclass, field
import torch
from pde_train.geometry import Box
from pde_train.pdes.base import PDE, on

@dataclass(frozen=True)
class Rod(PDE):
    source: float = 1.0
    weights: dict = field(default_factory=dict)
    coordinates = ("x",)
    domain = Box((0.0,), (1.0,))

    def exact(self, d):
        return self.source / 2 * d.x * (1 - d.x)

    @on("interior", needs="u_xx")
    def heat(self, d):
        return d.u_xx + self.source

    @on("boundary", needs="u")
    def ends(self, d):
        return d.u
""",
    "cubic": """
import torch

class Cubic(torch.nn.Module):
    def __init__(self, dimension):
        super().__init__()
        self.coefficients = torch.nn.Parameter(torch.zeros(4, 1, dtype=torch.float64))

    def features(self, x):
        return torch.cat([x**0, x, x**2, x**3], dim=1)

    def forward(self, x):
        return self.features(x) @ self.coefficients
""",
    "one_by_one": """
from dataclasses import dataclass
import torch
from pde_train.differentiators.base import Differentiator

@dataclass(frozen=True)
class OneByOne(Differentiator):
    def partials(self, u, x, axes):
        found = {}
        for a in axes:
            f = u
            for i in a:
                f = (lambda g, i: lambda y: torch.stack(
                    [torch.func.grad(lambda z, j=j: g(z)[:, j].sum())(y)[:, i] for j in range(g(y).shape[1])], dim=1
                ))(f, i)
            found[a] = f(x)
        return found
""",
}

YAML = {
    "pde/rod": "_target_: heated_rod.Rod\nsource: 2.0\nweights: {}\n",
    "model/cubic": "defaults:\n  - override /method@_global_.method: least_squares\n_target_: cubic.Cubic\n",
    "differentiator/one_by_one": "_target_: one_by_one.OneByOne\n",
}


def test_one_python_file_and_one_yaml_file_each(tmp_path: Path) -> None:
    for name, text in PYTHON.items():
        (tmp_path / f"{name}.py").write_text(text)
    for name, text in YAML.items():
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / f"{name}.yaml").write_text(text)
    words = ["pde=rod", "model=cubic", "differentiator=one_by_one", "tracking=none", "hydra.run.dir=run"]
    refused = command(tmp_path, *words)
    assert refused.returncode == 2
    assert "name your own module on the command line by trusted_modules" in refused.stderr
    done = command(tmp_path, *words, "trusted_modules=[heated_rod,cubic,one_by_one]")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]
    assert metrics["error_l2"] < 1e-14  # a cubic holds the exact parabola


@pytest.mark.parametrize(
    ("group", "target"),
    [
        ("model", "lightning.pytorch.core.saving._load_from_checkpoint"),
        ("model", "lightning.pytorch.LightningModule"),
        ("model", "pde_train.run_folder.clear"),
        ("model", "pde_train.cli.main"),
        ("model", "pde_train.models.activations.gelu"),
        ("model", "pde_train.models.two_layer.MLP.mro"),
        ("model", "torch.nn.init.ones_"),
        ("model", "torch.nn.utils.parametrize.type_before_parametrizations"),
        ("model", "torch.nn.modules.module.Parameter"),
        ("model", "torch.optim.Adam"),
        ("pde", "torch.nn.Linear"),
        ("pde", "pde_train.samplers.grid.Grid"),
        ("optimizer", "torch.optim.lr_scheduler.StepLR"),
        ("optimizer", "torch.nn.Linear"),
        ("sampler", "pde_train.tracking.none.NoTracker"),
        ("differentiator", "pde_train.diagnostics.audit.Audit"),
        ("method", "pde_train.experiment.run"),
        ("diagnostics", "pde_train.entropy.Entropy"),
        ("entropy", "pde_train.diagnostics.audit.Audit"),
        ("audit", "pde_train.entropy.Entropy"),
        ("tracking", "pde_train.sync.sync"),
    ],
)
def test_a_group_is_made_of_classes_that_it_expects_and_of_nothing_else(
    compose: Compose, group: str, target: str
) -> None:
    cfg = compose("model=two_layer", f"{group}._target_={target}")
    with pytest.raises(
        UsageError, match=r"is not trusted: expected .* of pde_train, torch.nn, torch.optim; name|does not exist"
    ):
        build_group(cfg, "method" if group == "optimizer" else group)
    with pytest.raises(UsageError, match=r"is not trusted|does not exist"):
        build(cfg)


@pytest.mark.parametrize("target", ["os.system", "pde_train.run_folder.clear", "pde_train.runs.run.run_config"])
def test_nothing_nested_is_anything_else_either(compose: Compose, target: str) -> None:
    for nested in ("model.x", "pde.weights.x", "model.x.y", "diagnostics.differentiators.x"):
        cfg = compose("model=two_layer", "diagnostics=compare", f"++{nested}._target_={target}")
        with pytest.raises(UsageError, match="is not trusted"):
            build_group(cfg, nested.partition(".")[0])
    cfg = compose("diagnostics=compare", "+diagnostics.differentiators.x._target_=pde_train.entropy.Entropy")
    with pytest.raises(UsageError, match=r"expected pde_train.differentiators.base.Differentiator"):
        build_group(cfg, "diagnostics")


def test_what_a_function_makes_is_what_the_group_expects(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made_by_me.py").write_text("def sampler(**fields):\n    return 7\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    cfg = compose("sampler._target_=made_by_me.sampler", "trusted_modules=[made_by_me]")
    with pytest.raises(UsageError, match=r"sampler was built as int: expected pde_train.samplers.base.Sampler"):
        build_group(cfg, "sampler")
    (tmp_path / "of_mine.py").write_text("class Model:\n    def __init__(self, **fields):\n        pass\n")
    with pytest.raises(UsageError, match=r"expected torch.nn.Module"):
        build_group(compose("model._target_=of_mine.Model", "trusted_modules=[of_mine]"), "model", dimension=1)


EVIL = """
from pathlib import Path
Path("ran").write_text("")
from pde_train.models.two_layer import two_layer as model
"""

OVERLAYS = {
    "widens": "trusted_modules: [evil]\nmodel: {_target_: evil.model}\n",
    "spoofs": "trusted_modules: [evil]\nmodel: {_target_: evil.model}\n"
    "hydra: {overrides: {task: ['trusted_modules=[evil]']}}\n",
    "params": "hydra: {sweeper: {params: {trusted_modules: '[evil]', model._target_: evil.model}}}\n",
    "tracks": "trusted_modules: [evil]\ntracking: {_target_: evil.model}\n",
    "calls": "hydra: {callbacks: {x: {_target_: os.mkdir, path: ran}}}\n",
    "calls_through": "hydra: {callbacks: {x: {_target_: hydra_plugins.pde_train.sweeper.os.mkdir, path: ran}}}\n",
    "calls_elsewhere": "x: {_target_: os.mkdir, path: ran}\nhydra: {callbacks: {x: '${x}'}}\n",
    "logs": "hydra: {job_logging: {handlers: {x: {(): os.mkdir, path: ran}}}}\n",
    "imports": "hydra: {job_logging: {handlers: {x: {class: evil.model}}}}\n",
    "external": "hydra: {job_logging: {handlers: {console: {stream: 'ext://evil.model'}}}}\n",
    "sweeps": "hydra: {sweeper: {params: {x: {_target_: os.mkdir, path: ran}}}}\n",
}


def environment_of(folder: Path) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PDE_TRAIN", "HYDRA", "MLFLOW"))}
    return {**clean, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", forked.WITHOUT_FIGURES: ""}


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    words = ("-m", "pde_train", "--config-dir", "mine", *words)
    return forked.run(*words, folder=folder, environment=environment_of(folder))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_file_widens_trust_or_runs_code(tmp_path: Path, overlay: str) -> None:
    (tmp_path / "evil.py").write_text(EVIL)
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    file = tmp_path / "mine" / "experiment" / "theirs.yaml"
    file.write_text(f"# @package _global_\n{OVERLAYS[overlay]}")
    for many in ([], ["--multirun", "seed=0,1"], ["--multirun", "experiment=theirs,first_look", "seed=0"]):
        if overlay == "params" and many != ["--multirun", "seed=0,1"]:
            continue  # another sweeper, or none, is used
        done = command(tmp_path, *many, *([] if "experiment" in str(many) else ["experiment=theirs"]))
        assert done.returncode == 2, done.stderr
        assert re.search("only the command line may widen trust|may not be used: expected Hydra's plugins", done.stderr)
        assert len(done.stderr.strip().splitlines()) == 1
        assert not (tmp_path / "ran").exists()


def test_words_of_the_command_widen_trust_wherever_a_cell_is_trained(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(EVIL)
    (tmp_path / "mine").mkdir()
    words = ["--multirun", "model=two_layer", "model._target_=good.model", "tracking=none", "method.steps=3"]
    words += ["trusted_modules=[good]", "model.width=4", "sampler.interior=8"]
    done = command(tmp_path, *words, "hydra/launcher=stacked", "seed=1,5")
    assert done.returncode == 0, done.stderr
    # processes of joblib that know nothing of this one, as they are not forked
    new = [sys.executable, "-m", "pde_train", "--config-dir", "mine", *words, "hydra/launcher=joblib", "seed=2,5"]
    new += ["hydra.launcher.n_jobs=2"]
    environment = environment_of(tmp_path)
    done = subprocess.run(new, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ran").exists()
    assert len(list(tmp_path.glob("multirun/cells/*/result.json"))) == 3


@pytest.mark.parametrize(
    "word",
    [
        "tracking.uri=http://bob:s3cret@127.0.0.1:9",
        "++tracking.uri=http://bob:s3cret@127.0.0.1:9",
        "+tracking.uri='http://bob:s3cr/et@127.0.0.1:9'",
        "tracking={uri: 'http://bob:s3cret@127.0.0.1:9'}",
        "tracking.uri=http://s3cret@127.0.0.1:9",
        "tracking.uri='postgresql://127.0.0.1/db?user=bob&password=s3cret'",
        "tracking.uri='sqlite:///a.db','http://bob:s3cret@h'",
        "name='http://bob:s3cret@127.0.0.1:9'",
        "tracking.uri=[http://bob:s3cret@127.0.0.1:9",
        "hydra.sweeper.params={tracking.uri:'http://bob:s3cret@h'}",
    ],
)
@pytest.mark.parametrize("many", [[], ["--multirun", "seed=0,1"]])
def test_a_secret_that_is_typed_is_refused_and_written_nowhere(tmp_path: Path, word: str, many: list[str]) -> None:
    (tmp_path / "mine").mkdir()
    done = command(tmp_path, *many, word)
    assert done.returncode == 2
    assert "holds a password or a token" in done.stderr
    assert "s3cr" not in done.stdout + done.stderr
    assert [f.name for f in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("many", [[], ["--multirun", "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]])
@pytest.mark.parametrize("uri", ["http://bob:s3cr/et-of-bob@127.0.0.1:9", "http://127.0.0.1:9/?token=s3cret-of-bob"])
def test_a_secret_of_a_file_is_written_nowhere_else(tmp_path: Path, uri: str, many: list[str]) -> None:
    (tmp_path / "mine" / "tracking").mkdir(parents=True)
    text = f"_target_: pde_train.tracking.mlflow.MlflowTracker\nexperiment: x\nuri: {uri}\n"
    (tmp_path / "mine" / "tracking" / "ours.yaml").write_text(text)
    words = [*many, "tracking=ours", "model.features=5"]
    done = command(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    shown = command(tmp_path, *words, "--cfg", "job")
    for text in (done.stdout, done.stderr, shown.stdout, shown.stderr):
        assert "of-bob" not in text
        assert "s3cr" not in text
    assert "does not answer" in done.stderr + done.stdout  # it was asked
    written = [f for f in tmp_path.rglob("*") if f.is_file() and "mine" not in f.parts]
    assert any(".hydra" in f.parts for f in written)
    assert not [f for f in written if b"of-bob" in f.read_bytes() or b"s3cr" in f.read_bytes()]


def test_the_study_refuses_a_typed_secret_before_it_prints_its_commands(tmp_path: Path) -> None:
    words = ["--small", "--parts", "contour", "tracking.uri=http://bob:s3cret@h"]
    done = forked.run("-m", "pde_train.study", *words, folder=tmp_path)
    assert done.returncode == 2
    assert "s3cret" not in done.stdout + done.stderr

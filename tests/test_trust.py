"""Which code a configuration may name, and by whom."""

import os
from pathlib import Path

import forked
import pytest
import torch
from fixtures import Compose

from pde_train.errors import UsageError
from pde_train.experiment import build
from pde_train.guards import check_trusted, refuse_trust
from pde_train.instantiate import locate

OWN = """
import os
from os import system
from pde_train.models.mlp import MLP

def made(dimension, width, **_):
    return MLP(dimension, [width], "tanh", 0)

def nothing(dimension, **_):
    return dimension
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_of_test.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    ("group", "target"),
    [
        ("pde", "os.system"),
        ("pde", "subprocess.Popen"),
        ("pde", "pde_train.cli.os.system"),
        ("pde", "pde_train.runs.provenance.subprocess"),
        ("pde", "torch.load"),
        ("pde", "torch.nn.os"),
        ("model", "lightning.pytorch.core.saving._load_from_checkpoint"),
        ("model", "lightning.pytorch.LightningModule"),
        ("model", "torch.nn.functional.tanh"),
        ("model", "torch.nn.utils.skip_init"),
        ("model", "torch.nn.init.xavier_uniform_"),
        ("model", "torch.optim.Adam"),
        ("model", "pde_train.runs.result.clear"),
        ("model", "pde_train.sync.main"),
        ("model", "pde_train.models.mlp.np.load"),
        ("model", "pde_train.models.activations.activation_named"),
        ("model", "pde_train.pdes.poisson_1d.Poisson1D"),
        ("optimizer", "torch.optim.lr_scheduler.ExponentialLR"),
        ("optimizer", "torch.nn.Linear"),
        ("tracking", "pde_train.tracking.delivery.Store"),
        ("sampler", "pde_train.tracking.mlflow.MlflowTracker"),
        ("differentiator", "pde_train.samplers.grid.Grid"),
        (None, "pde_train.tracking.delivery.Store"),
        (None, "pde_train.models.two_layer.two_layer"),
        (None, "torch.nn.functional.tanh"),
    ],
)
def test_what_is_no_class_of_its_group_is_refused(group: str | None, target: str) -> None:
    with pytest.raises(UsageError, match=rf"_target_={target} (is not trusted|does not exist)"):
        locate(target, (), group or "model.nested")


@pytest.mark.parametrize(
    ("group", "target"),
    [
        ("model", "pde_train.models.two_layer.two_layer"),
        ("model", "torch.nn.Linear"),
        ("optimizer", "torch.optim.AdamW"),
        ("optimizer", "pde_train.optimizers.lbfgs.LBFGS"),
        (None, "pde_train.differentiators.taylor.Taylor"),
        (None, "torch.nn.Linear"),
    ],
)
def test_classes_of_a_group_are_trusted(group: str | None, target: str) -> None:
    assert callable(locate(target, (), group or "model.nested"))


def test_a_refusal_comes_before_anything_is_built(compose: Compose) -> None:
    with pytest.raises(UsageError, match=r"lightning.pytorch.core.saving._load_from_checkpoint is not trusted"):
        build(compose("model._target_=lightning.pytorch.core.saving._load_from_checkpoint"))


def test_of_a_module_that_is_trusted_only_what_is_defined_there(compose: Compose, own_module: None) -> None:
    trusted = "trusted_modules=[own_of_test]"
    model = ["model=two_layer", "model.width=4"]
    assert isinstance(build(compose(*model, "model._target_=own_of_test.made", trusted)).problem.model, torch.nn.Module)
    with pytest.raises(UsageError, match=r"own_of_test.system is not trusted"):
        build(compose(*model, "model._target_=own_of_test.system", trusted))
    with pytest.raises(UsageError, match=r"own_of_test.made is not trusted"):
        build(compose(*model, "model._target_=own_of_test.made"))
    with pytest.raises(UsageError, match=r"model was built as int: expected torch.nn.Module"):
        build(compose(*model, "model._target_=own_of_test.nothing", trusted))


def test_only_words_of_a_command_name_modules(compose: Compose) -> None:
    check_trusted(compose(), [])
    own = compose("trusted_modules=[mine]")
    for word in ("trusted_modules=[mine]", "++trusted_modules=[mine,other]", "trusted_modules=[a],[mine]"):
        check_trusted(own, ["pde=rod", word])
    for words in ([], ["pde=rod"], ["trusted_modules=[other]"], ["model=trusted_modules"]):
        with pytest.raises(UsageError, match="stands in a file, and only the command line may widen trust"):
            check_trusted(own, words)
    with pytest.raises(UsageError, match="stands in a file, and only the command line may widen trust"):
        refuse_trust(["seed=0,1", "trusted_modules=[mine]"])


@pytest.mark.parametrize("mode", [[], ["--multirun"]])
@pytest.mark.parametrize("where", ["overlay", "sweeper"])
@pytest.mark.parametrize("what", ["pde", "tracking"])
def test_a_file_cannot_widen_trust(tmp_path: Path, mode: list[str], where: str, what: str) -> None:
    if where == "sweeper" and not mode:
        pytest.skip("choices of a sweep mean nothing in a single run")
    (tmp_path / "evil.py").write_text("import pathlib\npathlib.Path('ran').write_text('x')\ndef made(**_): pass\n")
    folder = tmp_path / "mine" / "experiment"
    folder.mkdir(parents=True)
    body = {
        "overlay": "trusted_modules: [evil]\n",
        "sweeper": "hydra:\n  sweeper:\n    params:\n      trusted_modules: '[evil]'\n",
    }[where]
    group = "tracking" if what == "tracking" else "pde"
    (folder / "innocent.yaml").write_text(f"# @package _global_\n{group}:\n  _target_: evil.made\n{body}")
    words = [*mode, "--config-dir", "mine", "experiment=innocent"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    done = forked.run("-m", "pde_train", *words, folder=tmp_path, environment=environment)
    assert done.returncode == 2, done.stderr
    assert "only the command line may widen trust" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "ran").exists()

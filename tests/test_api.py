"""Python's door: what it gives is what the command line makes, and what mathematics says."""

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import meshio
import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import pde_train as pt
from pde_train.errors import RunError, UsageError

WORDS = ("pde=poisson_1d", "model=two_layer", "model.width=8", "sampler.interior=20", "method.steps=30")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> pt.LoadedRun:
    """A short run, made once."""
    folder = tmp_path_factory.mktemp("api")
    experiment = pt.compose(*WORDS, f"tracking.uri=sqlite:///{folder}/mlflow.db", "method.compile=never")
    return experiment.run(folder / "run")


def test_a_run_from_python_is_that_of_the_command_line(run: pt.LoadedRun, tmp_path: Path) -> None:
    words = [*WORDS, "method.compile=never", "tracking=none", f"hydra.run.dir={tmp_path / 'run'}"]
    done = forked.run("-m", "pde_train", *words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    other = pt.load_run(tmp_path / "run")
    assert other.result.metrics["error_l2"] == run.result.metrics["error_l2"]
    assert run.result.choices["pde"] == "poisson_1d"


def test_what_is_loaded_is_what_was_trained(run: pt.LoadedRun) -> None:
    assert run.history["step"].iloc[-1] == 30
    assert run.history["loss"].dropna().iloc[0] > run.history["loss"].dropna().iloc[-1]
    x = np.linspace(-1, 1, 1001)
    predicted = run.predict(x)
    assert list(predicted) == ["x", "u"]
    error = np.linalg.norm(predicted["u"] - np.sin(math.pi * x)) / np.linalg.norm(np.sin(math.pi * x))
    assert error == pytest.approx(run.result.metrics["error_l2"], rel=1e-6)
    assert run.config.model.width == 8


def test_the_spectrum_of_a_loaded_run_is_that_which_it_has_kept(run: pt.LoadedRun) -> None:
    kept, again = run.spectrum(), pt.spectrum(run)
    np.testing.assert_allclose(again.values[:5], kept.values[:5], rtol=1e-10)
    assert pt.truncated_entropy(kept.values, 1e-8).normalised == pytest.approx(run.result.metrics["entropy/1e-08"])
    with pytest.raises(UsageError, match=r"has singular values at the steps 0, .*: expected 7"):
        run.spectrum(7)


def test_a_spectrum_has_the_step_that_is_chosen_for_the_model() -> None:
    words = ("pde=poisson_1d", "model=two_layer", "model.width=8", "sampler.interior=20", "tracking=none")
    by_steps = pt.compose(*words, "differentiator=finite_difference", "differentiator.step=optimal")
    problem = by_steps.problem
    own = problem.differentiator
    found = pt.spectrum(by_steps).values
    assert problem.differentiator is own  # the experiment is as it was
    problem.tune(problem.field, problem.draw(np.random.default_rng(problem.sampler.seed)))
    assert problem.differentiator != own
    np.testing.assert_array_equal(found, pt.spectrum(problem).values)
    tuned = problem.jacobian(problem.draw(np.random.default_rng(problem.sampler.seed))).dense()
    np.testing.assert_array_equal(found, pt.spectrum(tuned).values)


def test_figures_on_demand_are_those_that_a_run_draws_itself(tmp_path: Path) -> None:
    words = [*WORDS, "method.compile=never", "tracking=none", "diagnostics=compare", f"hydra.run.dir={tmp_path}/run"]
    assert forked.run("-m", "pde_train", *words, folder=tmp_path).returncode == 0
    own = tmp_path / "run" / "figures"
    by_run = {file.name: file.read_bytes() for file in own.glob("*.png")}
    shutil.rmtree(own)
    for again, said in (([], f"{own}\n"), (["--again"], f"{own}\n"), ([], "")):
        done = forked.run("-m", "pde_train.figures", str(tmp_path / "run"), *again, folder=tmp_path)
        assert (done.returncode, done.stdout) == (0, said), done.stderr
    on_demand = {file.name: file.read_bytes() for file in own.glob("*.png")}
    assert by_run.keys() - on_demand.keys() == {"compared_singular_values.png"}  # no file keeps them
    assert on_demand == {name: by_run[name] for name in on_demand}  # the same pixels


def test_a_run_without_figures_is_the_same_run_and_has_them_drawn_later(tmp_path: Path) -> None:
    words = [*WORDS, "method.compile=never", "tracking=none"]
    hashes = []
    for folder, word in (("with", "figures=true"), ("without", "figures=false")):
        done = forked.run("-m", "pde_train", *words, word, f"hydra.run.dir={tmp_path / folder}", folder=tmp_path)
        assert done.returncode == 0, done.stderr
        hashes.append(pt.load_run(tmp_path / folder).result.config_hash)
    assert hashes[0] == hashes[1]
    drawn, later = (tmp_path / folder / "figures" for folder in ("with", "without"))
    assert not later.exists()
    assert pt.load_run(tmp_path / "without").draw() == later
    assert {file.name for file in later.glob("*.png")} == {file.name for file in drawn.glob("*.png")} != set()


def test_an_experiment_that_runs_again_begins_anew(tmp_path: Path) -> None:
    experiment = pt.compose(*WORDS, "method.compile=never", "tracking=none", "figures=false")
    first, second = (experiment.run(tmp_path / name) for name in ("first", "second"))
    assert second.result.curves == first.result.curves
    assert not (tmp_path / "first" / "figures").exists()
    onward = [*WORDS, "method.compile=never", "tracking=none", "figures=false", f"model.start={tmp_path / 'first'}"]
    third = pt.compose(*onward).run(tmp_path / "third")
    shutil.rmtree(tmp_path / "first")
    predicted = pt.load_run(tmp_path / "third").predict([[0.3]])
    pd.testing.assert_frame_equal(predicted, third.predict([[0.3]]))


def test_figures_of_what_is_no_run_are_refused_with_a_sentence(tmp_path: Path) -> None:
    done = forked.run("-m", "pde_train.figures", "abc", folder=tmp_path)
    assert done.returncode == 2
    assert "abc is no run that has ended, nor a sweep: expected a folder with result.json or grid.json" in done.stderr


def test_a_run_is_loaded_from_its_store(run: pt.LoadedRun) -> None:
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{run.folder.parent}/mlflow.db"
    client = MlflowClient(uri)
    (stored,) = client.search_runs([client.get_experiment_by_name("pde_train").experiment_id])
    other = pt.load_run(stored.info.run_id, uri)
    pd.testing.assert_frame_equal(other.predict([[0.3]]), run.predict([[0.3]]))
    assert other.result.metrics == run.result.metrics
    with pytest.raises(RunError, match=r"the run nothing cannot be loaded from sqlite:///"):
        pt.load_run("nothing", uri)


@pytest.mark.parametrize("name", ["a,b", "a=b", "a'b", "a [b]", "a\\b"])
def test_a_folder_of_configuration_may_have_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name / "pde").mkdir(parents=True)
    (tmp_path / name / "pde" / "mine.yaml").write_text("defaults:\n  - poisson_1d\nfrequency: 2.0\n")
    found = pt.compose("pde=mine", "tracking=none", config_dir=tmp_path / name).problem.pde
    assert found.numbers()["frequency"] == 2
    with pytest.raises(UsageError, match=r"config_dir=.*nowhere is no folder: expected one with your own"):
        pt.compose("tracking=none", config_dir=tmp_path / "nowhere")


@pytest.mark.usefixtures("forked_sweeps")
def test_a_sweep_is_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["model=random_features", "model.features=10,20", "seed=0,1", "tracking=none", "diagnostics=none"]
    table = pt.sweep(*words, folder=tmp_path / "sweep")
    assert len(table) == 4
    assert (table["error_l2"] > 0).all()
    assert len(set(table["folder"])) == 4
    with pytest.raises(RunError, match=r"table.csv does not exist: expected the folder of a sweep"):
        pt.load_sweep(tmp_path)


@pytest.mark.parametrize("everybody", [True, False])
def test_ctrl_c_lets_a_sweep_save_and_end(tmp_path: Path, everybody: bool) -> None:
    """Which all processes of a terminal hear, or Python alone."""
    words = ["model=two_layer", "model.width=5", "sampler.interior=16", "method.compile=never", "diagnostics=none"]
    words += ["seed=0,1", "method.steps=10000000", "method.checkpoint_every=100", "tracking=none"]
    code = f"from pde_train import api\n{'' if everybody else 'api.PATIENCE = 1.0'}\napi.sweep(*{words})"
    process = forked.started("-c", code, folder=tmp_path)
    while not list(tmp_path.glob("multirun/cells/*/checkpoint.ckpt")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    (os.killpg if everybody else os.kill)(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=100)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in said
    (file,) = tmp_path.glob("multirun/cells/*/result.json")
    assert "a checkpoint was written" in file.read_text()
    assert list(tmp_path.glob("multirun/sweep-*/table.csv"))  # what the sweep does last


@pytest.mark.parametrize("by", ["taylor", "reverse", "finite_difference accuracy=8 step=optimal"])
def test_derivatives_of_any_function(by: str) -> None:
    x = torch.rand(7, 2, dtype=torch.float64)

    def u(z: Tensor) -> Tensor:
        return torch.sin(z[:, :1]) * torch.exp(z[:, 1:])

    found = pt.derivatives(u, x, "u u_xy lap_u", by)
    assert torch.allclose(found.u_xy, torch.cos(x[:, :1]) * torch.exp(x[:, 1:]), rtol=1e-6)
    assert torch.allclose(found.lap_u, torch.zeros(7, 1, dtype=torch.float64), atol=1e-5)
    named = pt.derivatives(u, x, "u_rs", by, coordinates=("r", "s"))
    assert torch.allclose(named.u_rs, found.u_xy, rtol=1e-6)


def test_a_model_has_the_defaults_of_its_file() -> None:
    """Width 64, two hidden layers: (2 + 1) 64 + (64 + 1) 64 + 64 + 1 parameters in two dimensions."""
    network = pt.model("mlp hidden=[64,64]", dimension=2)
    assert sum(p.numel() for p in network.parameters()) == 3 * 64 + 65 * 64 + 65
    assert sum(p.numel() for p in pt.model("two_layer", 1).parameters()) == 50 * 3 + 1
    assert pt.model("two_layer width=7", 3, unknowns=2)(torch.zeros(4, 3, dtype=torch.float64)).shape == (4, 2)
    with pytest.raises(UsageError, match=r"two_layers is no model: expected one of .*, did you mean two_layer"):
        pt.model("two_layers", 1)


@pytest.mark.parametrize("by", ["taylor", "reverse", "complex_step", "finite_difference accuracy=8"])
def test_whole_numbers_and_points_of_another_precision_lose_no_digits(by: str) -> None:
    exact = -torch.sin(torch.arange(3, dtype=torch.float64)).unsqueeze(1)
    torch.testing.assert_close(pt.derivatives(torch.sin, torch.arange(3), "u_xx", by).u_xx, exact, rtol=0, atol=1e-8)
    network = pt.model("mlp hidden=[8]", dimension=2)
    single = torch.rand(4, 2, dtype=torch.float32)
    found = pt.derivatives(network, single, "u_xy", by).u_xy
    assert torch.equal(found, pt.derivatives(network, single.double(), "u_xy", by).u_xy)


def test_names_that_do_not_fit_the_points_are_refused() -> None:
    """With one name for two coordinates the Laplacian would be the sum over one of them, or of another thing."""

    def u(x: Tensor) -> Tensor:
        return x[:, :1] ** 2 * x[:, 1:] ** 2

    for names, listed in ((("x",), "x"), (("x", "x"), "x, x"), (("x", "y", "z"), "x, y, z")):
        with pytest.raises(UsageError, match=f"points of 2 coordinates were given with the names {listed}: expected"):
            pt.derivatives(u, torch.ones(3, 2), "u_x", coordinates=names)


@pytest.mark.parametrize(
    "setting", ["output_scale=3", "input_scaling=true", "periodic=[x]", "harmonics=2", "separate=true", "start=folder"]
)
def test_settings_of_a_model_that_need_a_run_are_refused_without_one(setting: str) -> None:
    name = setting.partition("=")[0]
    with pytest.raises(UsageError, match=rf"model\.{name}=.* is for the model of a run, and this one stands alone"):
        pt.model(f"mlp {setting}", dimension=1)


def test_ways_are_compared_with_the_first() -> None:
    table = pt.compare(torch.sin, np.linspace(0, 1, 5), "u_x u_xx", ["taylor", "reverse", "finite_difference step=0.1"])
    assert list(table["by"]) == ["taylor", "reverse", "finite_difference step=0.1"]
    assert (table.loc[:1, ["u_x", "u_xx"]] < 1e-14).all(axis=None)
    # central differences of accuracy 2 multiply a derivative of sin by 1 - h^2 / 6 and 1 - h^2 / 12
    assert table["u_x"][2] == pytest.approx(0.1**2 / 6, rel=1e-2)
    assert table["u_xx"][2] == pytest.approx(0.1**2 / 12, rel=1e-2)


def test_bad_input_is_one_sentence(run: pt.LoadedRun, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"tailor is no differentiator: expected one of .*did you mean taylor"):
        pt.derivatives(torch.sin, [0.0], "u_x", "tailor")
    with pytest.raises(UsageError, match=r"'u_q' names no derivative over the coordinates x"):
        pt.derivatives(torch.sin, [0.0], "u_q")
    with pytest.raises(UsageError, match=r"points of 2 coordinates were given, and this PDE has x: expected an array"):
        run.predict([[0.0, 1.0]])
    with pytest.raises(UsageError, match=r"points of the shape \(\) were given: expected \(n, d\), or \(n,\)"):
        pt.derivatives(torch.sin, 0.5, "u_x")
    with pytest.raises(UsageError, match=r"no way of taking derivatives to compare: expected some"):
        pt.compare(torch.sin, [0.0], "u_x", by=())
    with pytest.raises(UsageError, match=r"a tensor of the shape \(3,\) is no matrix: expected the shape \(n, p\)"):
        pt.spectrum(torch.ones(3))
    with pytest.raises(UsageError, match=r" is no model: expected one of"):
        pt.model("", 1)
    with pytest.raises(RunError, match=r"holds no finished run: expected a folder with config.yaml"):
        pt.load_run(tmp_path)


def test_the_command_line_does_not_import_it() -> None:
    """`--help` answers at once: importing the package imports neither torch nor the API."""
    program = "import sys, pde_train; assert 'torch' not in sys.modules and 'compose' in dir(pde_train)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("words", "size"),
    [
        (("pde=poisson_l_shape",), 3.0),  # of a square of side 2 without a quarter
        (("pde=heat_1d",), None),  # space and time
        (("pde=poisson_nd", "pde.dimension=3", "sampler.boundary=6"), None),
    ],
)
def test_a_solution_is_written_on_a_mesh_of_the_domain(
    words: tuple[str, ...], size: float | None, tmp_path: Path
) -> None:
    """Cells fill the domain once, none is turned inside out, and values are those of `predict`."""
    small = ("model=two_layer", "model.width=4", "sampler.interior=64", "method.steps=2", "diagnostics=none")
    run = pt.compose(*words, *small, "method.compile=never", "tracking=none").run(tmp_path / "run")
    pde = run.problem.pde
    d = pde.domain.dimension
    mesh = meshio.read(run.to_vtk(tmp_path / "solution.vtu", points_a_side=9))
    (block,) = mesh.cells
    assert block.type == {2: "quad", 3: "hexahedron"}[d]
    corners = mesh.points[block.data][..., :d]
    edges = np.stack([corners[:, k] - corners[:, 0] for k in ((1, 3) if d == 2 else (1, 3, 4))], axis=1)
    volumes = np.linalg.det(edges)
    assert volumes.min() > 0
    assert volumes.sum() == pytest.approx(np.prod(pde.domain.lengths) if size is None else size)
    predicted = run.predict(mesh.points[:, :d])
    for unknown in pde.unknowns:
        values = predicted[unknown].to_numpy()
        np.testing.assert_allclose(mesh.point_data[unknown], values, rtol=1e-12)
        if pde.has_exact:
            exact = mesh.point_data[f"exact_{unknown}"]
            np.testing.assert_allclose(mesh.point_data[f"error_{unknown}"], values - exact, atol=1e-12)


def test_other_dimensions_have_no_mesh(run: pt.LoadedRun, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"draws 2 or 3 coordinates, and this PDE has 1: expected predict"):
        run.to_vtk(tmp_path / "solution.vtu")


def test_without_locks_of_posix_derivatives_work_and_a_run_is_refused_in_a_sentence(tmp_path: Path) -> None:
    """As on Windows, where there is no module fcntl."""
    program = """
import sys
sys.modules["fcntl"] = None
sys.modules["resource"] = None
import torch, pde_train as pt
x = torch.tensor([[0.3], [0.7]], dtype=torch.float64)
print(float((pt.derivatives(torch.sin, x, "u_xx", by="finite_difference accuracy=8").u_xx + torch.sin(x)).abs().max()))
print(pt.spectrum(torch.eye(3)).values)
from pde_train.cli import main
sys.argv = ["pde_train", "tracking=none"]
main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    error, values = done.stdout.splitlines()[:2]
    assert float(error) < 1e-9
    assert values == "[1. 1. 1.]"
    assert done.returncode == 2
    (sentence,) = [line for line in done.stderr.splitlines() if line]
    assert sentence.startswith("runs need the file locks of POSIX, which linux does not have: expected Linux or macOS")

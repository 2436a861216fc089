"""Inverse problems: measured values, and numbers of a PDE that are learnt with the network."""

import math
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures import Compose, KilledAt
from scipy import stats
from test_domains import OnDisc
from torch import Tensor

from pde_train import residuals
from pde_train.derivatives import Jet
from pde_train.diagnostics.interval import intervals
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.complex_step import ComplexStep
from pde_train.differentiators.finite_difference import FiniteDifference
from pde_train.differentiators.forward import Forward
from pde_train.differentiators.hybrid import Hybrid
from pde_train.differentiators.reverse import Reverse
from pde_train.differentiators.taylor import Taylor
from pde_train.errors import UsageError
from pde_train.experiment import build
from pde_train.geometry import Box
from pde_train.models.mlp import MLP
from pde_train.models.numbers import WithNumbers
from pde_train.pdes.base import PDE, on
from pde_train.pdes.burgers_1d import Burgers1D
from pde_train.pdes.inverse import Data, Learned
from pde_train.problem import Problem
from pde_train.runs.loaded import load_run
from pde_train.runs.result import Result
from pde_train.runs.run import run, run_config
from pde_train.runs.tables import learnt_numbers
from pde_train.samplers.uniform import Uniform

pytestmark = pytest.mark.usefixtures("without_figures")

EPS = 2.0**-52


@dataclass(frozen=True)
class Rod(PDE):
    """-k u'' = 1 on [0, 1], u = 0 at both ends: u = x (1 - x) / (2 k)."""

    k: float = 2.0
    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x",)
    domain = Box((0.0,), (1.0,))

    @on("interior", needs="u_xx")
    def heat(self, d: Jet) -> Tensor:
        return -self.k * d.u_xx - 1

    @on("boundary", needs="u")
    def ends(self, d: Jet) -> Tensor:
        return d.u

    def exact(self, d: Jet) -> Tensor:
        return d.x * (1 - d.x) / (2 * self.k)


def measured(folder: Path, name: str = "rod.csv", k: float = 2.0, rows: int = 9) -> str:
    """A file of values of the rod's solution."""
    x = np.linspace(0.1, 0.9, rows)
    u = x * (1 - x) / (2 * k)
    if name.endswith(".npz"):
        np.savez(folder / name, x=x, u=u)
    else:
        np.savetxt(folder / name, np.stack([x, u], axis=1), delimiter=",", header="x,u", comments="")
    return str(folder / name)


def posed(pde: PDE, differentiator: Differentiator | None = None) -> Problem:
    model = WithNumbers(MLP(pde.domain.dimension, [6, 5], "tanh", 0), pde.starts_and_bounds)
    return Problem(pde, model, differentiator or Taylor(), Uniform(12, 8, initial=8))


DIFFERENTIATORS = [Reverse(), Forward(), Taylor(), ComplexStep(), Hybrid(), FiniteDifference(4, 1e-2)]


@pytest.mark.parametrize("differentiator", DIFFERENTIATORS, ids=lambda d: type(d).__name__)
def test_residuals_are_those_of_the_pde_with_the_learnt_number(differentiator: Differentiator) -> None:
    learning = Burgers1D(viscosity=0.01).with_inverse({"viscosity": Learned(0.15, 0.1, 0.7)}, None)
    problem = posed(learning, differentiator)
    plain = Problem(Burgers1D(viscosity=0.15), problem.model.get_submodule("model"), differentiator, problem.sampler)
    batch = problem.draw(np.random.default_rng(0))
    found = residuals.evaluate(learning, problem.model, differentiator, batch)
    expected = residuals.evaluate(plain.pde, plain.model, differentiator, batch)
    for name, values in expected.items():
        torch.testing.assert_close(
            found[name], values, rtol=0, atol=1e3 * EPS * (1e8 if not differentiator.exact else 1)
        )
    assert problem.residual(batch) == pytest.approx(plain.residual(batch), rel=1e-9 if differentiator.exact else 1e-6)


def test_the_gradient_by_a_learnt_number_is_that_of_the_formula() -> None:
    pde = Rod().with_inverse({"k": Learned(1.5)}, None)
    problem = posed(pde)
    batch = problem.draw(np.random.default_rng(0))
    model = problem.model
    assert isinstance(model, WithNumbers)
    (found,) = torch.autograd.grad(problem.loss(batch), [model.numbers])
    u_xx = Reverse().partials(model.get_submodule("model"), batch["interior"].x, frozenset({(0, 0)}))[0, 0].detach()
    by_hand = (2 * (-1.5 * u_xx - 1) * -u_xx).mean()
    assert float(found) == pytest.approx(float(by_hand), rel=1e-12)
    rows = problem.jacobian(batch).dense()
    place = next(i for i, (name, _) in enumerate(model.named_parameters()) if name == "numbers")
    assert place == 0
    torch.testing.assert_close(rows[:12, 0], -u_xx.flatten() / 12**0.5, rtol=1e-12, atol=0)
    assert bool((rows[12:, 0] == 0).all())


def test_a_number_approaches_its_bounds_and_never_crosses_them() -> None:
    model = WithNumbers(MLP(1, [3], "tanh", 0), [(0.3, 0.1, 0.7), (-2.0, None, None)])
    assert model.values().tolist() == pytest.approx([0.3, -2.0], rel=1e-15)
    with torch.no_grad():
        for p, expected in ((-50.0, 0.1), (50.0, 0.7)):
            model.numbers.copy_(torch.tensor([p, p]))
            assert model.values().tolist() == pytest.approx([expected, p], rel=1e-15)


OWN = ["trusted_modules=[test_inverse]", "pde._target_=test_inverse.Rod", "~pde.weights", "~pde.frequency"]
TRAINED = ["model=two_layer", "model.width=8", "sampler=uniform", "sampler.interior=40", "diagnostics=none"]
LEARNT = ["++pde.k=2.0", "pde.learn={k: {start: 0.5, lower: 0.1, upper: 10}}", "method.compile=never"]


@pytest.mark.parametrize(
    "method", [["method=gauss_newton", "method.steps=60"], ["optimizer=ssbroyden", "method.steps=600"]]
)
@pytest.mark.parametrize("name", ["rod.csv", "rod.npz"])
def test_nine_values_give_the_conductivity(compose: Compose, tmp_path: Path, method: list[str], name: str) -> None:
    data = f"pde.data={{path: {measured(tmp_path, name)}}}"
    record = run(build(compose(*OWN, *TRAINED, *LEARNT, *method, data)), tmp_path / "run")
    last = record.last()
    assert last["number/k"] == pytest.approx(2.0, rel=1e-3)
    assert last["error/k"] == pytest.approx(abs(last["number/k"] - 2) / 2, rel=1e-9)
    assert record.series["number/k"][0] == pytest.approx(0.5)
    assert last["misfit/u"] < 1e-3 < 0.5 < record.series["misfit/u"][0]
    assert last["error_l2"] < 1e-3


def test_a_loaded_run_predicts_the_unknowns_alone(compose: Compose, tmp_path: Path) -> None:
    data = f"pde.data={{path: {measured(tmp_path)}}}"
    run(build(compose(*OWN, *TRAINED, *LEARNT, "method.steps=3", data)), tmp_path / "run")
    loaded = load_run(tmp_path / "run")
    predicted = loaded.predict([0.25, 0.5])
    assert list(predicted) == ["x", "u"]
    with torch.no_grad():
        values = loaded.model(torch.tensor([[0.25], [0.5]], dtype=torch.float64))
    assert predicted["u"].tolist() == values[:, 0].tolist()
    assert values[:, 1].tolist() == [loaded.result.metrics["number/k"]] * 2


def test_the_interval_of_a_number_is_that_of_regression(compose: Compose, tmp_path: Path) -> None:
    """Rows of values that weigh little leave the equation exact: u = g / (2 k) with g = x (1 - x), a line through 0."""
    data = f"pde.data={{path: {measured(tmp_path, rows=41)}, noise: 0.05, seed: 3, weight: 0.1}}"
    learnt = ["++pde.k=2.0", "pde.learn={k: {start: 1.5}}", "method.compile=never"]
    experiment = build(compose(*OWN, *TRAINED, *learnt, "method=gauss_newton", "method.steps=200", data))
    last = run(experiment, tmp_path / "run").last()
    values = experiment.problem.pde.measurements
    assert values is not None
    g, y = values.x * (1 - values.x), values.values
    slope = float((g * y).sum() / (g**2).sum())
    deviation = math.sqrt(float(((y - slope * g) ** 2).sum()) / 40 / float((g**2).sum()))
    k, half = 1 / (2 * slope), stats.t.ppf(0.975, 40) * deviation / (2 * slope**2)
    assert last["number/k"] == pytest.approx(k, rel=1e-4)
    assert last["interval/k/lower"] == pytest.approx(k - half, rel=2e-4)
    assert last["interval/k/upper"] == pytest.approx(k + half, rel=2e-4)
    assert half / k > 0.01
    assert last["interval/k/ahead"] < 0.1
    assert last["flag/unsettled_number"] == 0
    result = Result.read(tmp_path / "run")
    assert result is not None
    (line,) = learnt_numbers(result)
    found = re.fullmatch(r"k = (\S+), between (\S+) and (\S+) with 95 %", line)
    assert found is not None
    assert [float(number) for number in found.groups()] == pytest.approx([k, k - half, k + half], rel=2e-4)


def test_a_number_that_still_moves_is_flagged_and_its_interval_keeps_to_the_bounds(
    compose: Compose, tmp_path: Path
) -> None:
    data = f"pde.data={{path: {measured(tmp_path, rows=41)}, noise: 0.05}}"
    last = run(build(compose(*OWN, *TRAINED, *LEARNT, "method.steps=3", data)), tmp_path / "short").last()
    assert last["interval/k/ahead"] > 1
    assert last["flag/unsettled_number"] == 1
    assert 0.1 <= last["interval/k/lower"] < last["number/k"] < last["interval/k/upper"] <= 10
    few = f"pde.data={{path: {measured(tmp_path)}, count: 2}}"
    last = run(build(compose(*OWN, *TRAINED, *LEARNT, "method.steps=3", few)), tmp_path / "few").last()
    assert not any(name.startswith("interval/") for name in last)


def test_least_squares_says_that_it_learns_no_number(compose: Compose, tmp_path: Path) -> None:
    data = f"pde.data={{path: {measured(tmp_path)}}}"
    experiment = build(compose(*OWN, "model=random_features", "pde.learn={k: {start: 1.5}}", data))
    with pytest.raises(UsageError, match="method=least_squares learns no number of a PDE, such as k: expected a model"):
        run(experiment, tmp_path / "run")


@dataclass(frozen=True)
class Spare(Rod):
    """A rod with a number that no equation uses."""

    spare: float = 1.0


def test_a_number_that_nothing_determines_has_no_interval_and_is_flagged(tmp_path: Path) -> None:
    learned = {"k": Learned(2.0), "spare": Learned(1.0)}
    pde = Spare().with_inverse(learned, Data(measured(tmp_path, rows=41), noise=0.05))
    problem = posed(pde)
    found = intervals(problem, {**problem.sampler.draw(pde.domain, np.random.default_rng(0)), **pde.measured_points()})
    assert {"interval/k/lower", "interval/k/upper", "interval/k/ahead", "interval/spare/ahead"} == set(found)
    assert found["interval/spare/ahead"] == math.inf


def test_a_resumed_run_learns_on_to_the_same_bits(compose: Compose, tmp_path: Path, killed_at: KilledAt) -> None:
    data = f"pde.data={{path: {measured(tmp_path)}}}"
    words = ["method.steps=40", "method.chunk=7", "method.log_every=5", "method.checkpoint_every=10"]
    cfg = compose(*OWN, *TRAINED, *LEARNT, *words, data)
    run_config(cfg, tmp_path / "whole", {}, [])
    with killed_at(21):
        run_config(cfg, tmp_path / "killed", {}, [])
    cfg.resume = True
    run_config(cfg, tmp_path / "killed", {}, [])
    whole, killed = (
        [line for line in (tmp_path / name / "history.csv").read_text().splitlines() if line.startswith("number/k")]
        for name in ("whole", "killed")
    )
    assert len(whole) == 9
    assert whole == killed


def test_an_equation_of_ones_own_sees_the_given_values(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Flux(Rod):
        """The values are slopes of u."""

        data = Data(measured(tmp_path), noise=0.0)

        @on("data", needs="u_x")
        def slope(self, d: Jet) -> Tensor:
            return d.u_x - 3 * d.given_u

    pde = Flux()
    assert [e.name for e in pde.equations()] == ["heat", "ends", "slope"]
    problem = Problem(pde, MLP(1, [4], "tanh", 0), Taylor(), Uniform(5, 2))
    batch = problem.draw(np.random.default_rng(0))
    problem.begin(batch)
    x = batch["data"].x
    assert x.flatten().tolist() == pytest.approx(np.linspace(0.1, 0.9, 9))
    u_x = Reverse().partials(problem.model, x, frozenset({(0,)}))[(0,)]
    expected = u_x - 3 * x * (1 - x) / 4
    assert "misfit/u" not in problem.errors()  # the values are none of u
    torch.testing.assert_close(residuals.evaluate(pde, problem.model, Taylor(), batch)["slope"], expected)


def test_an_equation_may_be_called_data(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Named(Rod):
        @on("interior", needs="u")
        def data(self, d: Jet) -> Tensor:  # type: ignore[override]
            return d.u - self.exact(d)

    pde = Named()
    assert [e.name for e in pde.equations()] == ["heat", "data", "ends"]
    assert pde.measurements is None
    measuring = pde.with_inverse({}, Data(measured(tmp_path)))
    assert [e.name for e in measuring.equations()] == ["heat", "data", "ends", "data_u"]
    problem = Problem(measuring, MLP(1, [4], "tanh", 0), Taylor(), Uniform(5, 2))
    assert len(problem.draw(np.random.default_rng(0))["data"].x) == 9


def test_noise_has_its_size_and_rows_are_chosen_once(tmp_path: Path) -> None:
    path = measured(tmp_path, rows=4001)
    exact, noisy, few = (
        Data(path, **words).read(("x",), ("u",), Rod().domain)
        for words in ({}, {"noise": 0.1, "seed": 3}, {"count": 50, "seed": 3})
    )
    size = float(np.sqrt(np.mean(exact.values**2)))
    assert (noisy.values - exact.values).std() == pytest.approx(0.1 * size, rel=0.05)
    assert abs((noisy.values - exact.values).mean()) < 0.01 * size
    assert few.x.shape == (50, 1)
    assert len({float(x) for x in few.x.flatten()} & {float(x) for x in exact.x.flatten()}) == 50
    again = Data(path, count=50, seed=3).read(("x",), ("u",), Rod().domain)
    assert (again.x == few.x).all()


def test_values_of_the_exact_solution_are_those_of_the_configured_numbers() -> None:
    pde = Burgers1D(viscosity=0.15).with_inverse({"viscosity": Learned(0.5)}, Data("exact", count=20, seed=1))
    found = pde.measurements
    assert found is not None
    assert found.names == ("u",)
    expected = Burgers1D(viscosity=0.15).exact_at(torch.from_numpy(found.x)).numpy()
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-14)
    varied = pde.with_numbers({"viscosity": torch.tensor(0.2)})
    assert varied.measurements is found


def test_a_file_of_a_spreadsheet_has_a_mark_of_its_encoding(tmp_path: Path) -> None:
    (tmp_path / "marked.csv").write_text("\ufeffx , u\n0.5, 7\n", encoding="utf-8")
    found = Data(str(tmp_path / "marked.csv")).read(("x",), ("u",), Rod().domain)
    assert (found.x.tolist(), found.values.tolist()) == ([[0.5]], [[7.0]])


def test_a_bound_that_is_infinite_is_none() -> None:
    with pytest.raises(UsageError, match=r"between 0\.0 and inf has an infinite bound: expected finite bounds"):
        Learned(1.0, 0.0, math.inf)


def test_columns_of_other_names(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("position, time, speed\n0.5, 0.25, 7\n")
    box = Box((0.0, 0.0), (1.0, 1.0))
    found = Data(str(tmp_path / "other.csv"), {"x": "position", "t": "time", "v": "speed"}).read(
        ("x", "t"), ("u", "v"), box
    )
    assert (found.names, found.x.tolist(), found.values.tolist()) == (("v",), [[0.5, 0.25]], [[7.0]])


def test_a_pde_with_data_and_pieces_of_a_boundary_goes_to_other_processes(tmp_path: Path) -> None:
    inverse = Rod().with_inverse({"k": Learned(0.5)}, Data(measured(tmp_path)))
    plate = OnDisc()
    assert inverse.regions
    assert plate.faces["circle"]
    (tmp_path / "rod.csv").unlink()
    for pde in (inverse, plate):
        sent = pickle.loads(pickle.dumps(pde))
        assert [e.name for e in sent.equations()] == [e.name for e in pde.equations()]
    again = pickle.loads(pickle.dumps(inverse))
    assert (again.measured_points()["data"].x == inverse.measured_points()["data"].x).all()


FILES = {
    "names.csv": "a,u\n0.5,1\n",
    "empty.csv": "x,u\n0.5,\n0.2,1\n",
    "nan.csv": "x,u\n0.5,nan\n",
    "outside.csv": "x,u\n0.5,1\n1.5,1\n",
    "word.csv": "x,u\n0.5,one\n",
    "nothing.csv": "x,w\n0.5,1\n",
    "twice.csv": "x,u,u\n0.5,1,2\n",
}


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            "path: absent.csv",
            r"pde\.data\.path=absent\.csv cannot be read \(FileNotFoundError.*: expected a \.csv file",
        ),
        ("path: names.csv", "lacks x, and has a, u: expected a column for each of x"),
        ("path: empty.csv", "has 1 rows with an empty, nan or infinite u, first row 1: expected finite numbers"),
        ("path: nan.csv", "has 1 rows with an empty, nan or infinite u"),
        (
            "path: outside.csv",
            r"has 1 of 2 points outside of the domain, first \(1\.5\): expected points of the domain",
        ),
        ("path: word.csv", r"cannot be read \(ValueError"),
        ("path: twice.csv", r"twice\.csv has the columns x, u, u: expected different names, rename or remove some"),
        ("path: complex.npz", r"no real numbers in u \(complex128\): expected real numbers, such as the real and the"),
        ("path: words.npz", r"no real numbers in x \(<U1\): expected real numbers"),
        ("path: 5", r"pde\.data has path=5 and columns=\{\}: expected the name of a file or exact, and names such as"),
        ("path: outside.csv, columns: null", r"pde\.data has path=outside\.csv and columns=None: expected the name of"),
        ("path: nothing.csv", "has the columns x, w, and no unknown was measured: expected some of u"),
        ("path: outside.csv, count: 0", r"pde\.data\.count=0 leaves no row: expected a positive integer"),
        ("path: outside.csv, count: 2.5", r"pde\.data\.count=2\.5 leaves no row: expected a positive integer"),
        ("path: outside.csv, columns: {X: x}", r"pde\.data\.columns has X: expected names of the PDE, x, u, each"),
        (
            "path: outside.csv, columns: {u: x}",
            r"pde\.data takes the columns x, x for x, u: expected a column of its own",
        ),
        ("path: outside.csv, noise: -1", r"pde\.data\.noise=-1 is no size of noise: expected a number >= 0"),
        (
            "path: exact",
            r"pde\.data\.path=exact takes the exact solution at pde\.data\.count points: expected a PDE with",
        ),
        ("path: outside.csv, nois: 1", r"pde\.data=.* is no Data \(.*'nois'\): expected the keys path, columns"),
    ],
)
def test_values_that_cannot_be_used_are_refused(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    np.savez(tmp_path / "complex.npz", x=np.array([0.5, 0.6]), u=np.array([1 + 2j, 3]))
    np.savez(tmp_path / "words.npz", x=np.array(["a", "b"]), u=np.array([1.0, 3.0]))
    with pytest.raises(UsageError, match=sentence):
        build(compose(*OWN, *TRAINED, "++pde.k=2.0", f"pde.data={{{data}}}"))


@pytest.mark.parametrize(
    ("learn", "sentence"),
    [
        ("l: {start: 1}", "Rod has no number 'l' that could be learnt: expected one of k"),
        ("k: {start: 1, lower: 0}", "a learnt number between 0 and None has one bound: expected both, or null"),
        ("k: {start: 1, lower: 2, upper: 3}", "starts at 1 is not between its bounds 2 and 3: expected a finite"),
        ("k: {begin: 1}", r"pde\.learn\.k=.* is no Learned \(.*'begin'\): expected the keys start, lower, upper"),
    ],
)
def test_numbers_that_cannot_be_learnt_are_refused(compose: Compose, learn: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        build(compose(*OWN, *TRAINED, "++pde.k=2.0", f"pde.learn={{{learn}}}"))

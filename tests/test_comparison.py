"""All differentiators on the same parameters and points, against computations that share none of their code."""

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures import Compose
from matplotlib.image import imread
from mlflow.tracking import MlflowClient
from torch import Tensor, nn

from pde_train import plots
from pde_train.derivatives import Axes, Field, Jet
from pde_train.diagnostics.compare import Compare
from pde_train.diagnostics.comparison import PeakMemory, compare
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.complex_step import ComplexStep
from pde_train.differentiators.finite_difference import FiniteDifference
from pde_train.differentiators.forward import Forward
from pde_train.differentiators.hybrid import Hybrid
from pde_train.differentiators.reverse import Reverse
from pde_train.differentiators.stochastic import Stochastic
from pde_train.differentiators.taylor import Taylor
from pde_train.errors import RunError, UsageError
from pde_train.experiment import Experiment, build
from pde_train.geometry import Batch, Box
from pde_train.pdes.base import PDE, on
from pde_train.problem import Problem
from pde_train.runs import figures, tables
from pde_train.runs.run import run, run_config
from pde_train.tracking.record import Measured, Record

NETWORK = ["model=two_layer", "model.width=6", "sampler.interior=20"]
TRAINED = [*NETWORK, "method.steps=40", "method.log_every=10", "method.compile=never"]
QUICK = ["diagnostics=compare", "diagnostics.repeats=1"]
FEW = [f"~diagnostics.differentiators.{name}" for name in ("reverse", "complex_step", "finite_difference_8", "forward")]


def problem_of(compose: Compose, *overrides: str) -> tuple[Problem, Batch]:
    """A problem and its training points."""
    problem = build(compose(*overrides)).problem
    return problem, problem.draw(np.random.default_rng(problem.sampler.seed))


def compared(experiment: Experiment) -> Compare:
    """The comparison that an experiment makes."""
    assert isinstance(experiment.diagnostics, Compare)
    return experiment.diagnostics


def only(problem: Problem, batch: Batch, differentiator: Differentiator, **options: Any) -> Measured:
    """The comparison of one differentiator."""
    options = {"max_dense": 10**7, "repeats": 1} | options
    return compare(problem, batch, {"it": differentiator}, **options)["it"]


def measurements(record: Record) -> dict[str, dict[int, float]]:
    """Every number of a run but its wall times."""
    return {k: v for k, v in record.series.items() if not k.startswith("seconds") and not k.endswith("/seconds")}


@pytest.mark.parametrize(
    ("overrides", "left_out"),
    [
        (["model.features=12", "sampler.interior=20"], set()),
        (["pde=biharmonic_2d", "pde.boundary=clamped", "model.features=9", "sampler.interior=16"], set()),
        (["pde=euler_beam", *NETWORK, "accelerator.precision=float32"], set()),
        (["pde=convection_1d", *NETWORK, "sampler.interior=16", "model.activation=relu"], {"complex_step"}),
        (["pde=burgers_1d", "model.hidden=[4,4]", "sampler.interior=16"], set()),
        (["pde=poisson_nd", "sampler=sobol", *NETWORK, "sampler.interior=16"], set()),
        (["pde=poisson_2d", "model=mlp", "model.hidden=[4,4]", "sampler.interior=16"], set()),
    ],
)
def test_every_choice_gives_finite_numbers_or_says_why_it_is_left_out(
    compose: Compose, caplog: pytest.LogCaptureFixture, overrides: list[str], left_out: set[str]
) -> None:
    experiment = build(compose(*overrides, *QUICK))
    problem, everything = experiment.problem, compared(experiment).differentiators
    batch = problem.draw(np.random.default_rng(0))
    found = compare(problem, batch, everything, max_dense=10**7, repeats=1)
    assert set(found) == set(everything) - left_out
    assert all(f"{name} is left out of the comparison: " in caplog.text for name in left_out)
    names = {name for _, request in problem.pde.regions.values() for name in request.names} - {"u"}
    eps = torch.finfo(problem.dtype).eps
    for name, measured in found.items():
        numbers = measured.numbers
        assert {q.removeprefix("error/") for q in numbers if q.startswith("error/")} == names
        assert all(math.isfinite(v) for v in numbers.values()), name
        assert len(measured.spectrum.values) == len(found["reverse"].spectrum.values)
        assert numbers["seconds"] > 0
        assert numbers["memory"] > 0
        if everything[name].exact:
            assert max(v for q, v in numbers.items() if q.startswith("error/")) < 300 * eps, name
            assert numbers["gradient_error"] < 300 * eps, name
            assert numbers["gradient_cosine"] == pytest.approx(1, abs=10 * eps)
            assert numbers["residual"] == pytest.approx(found["reverse"].numbers["residual"], rel=100 * eps)


def test_the_error_of_finite_differences_is_that_of_their_symbol(compose: Compose) -> None:
    """On sin(w x + b) the three-point formula is (2 - 2 cos w h) / (w h)^2 times the second derivative, exactly."""
    problem, batch = problem_of(compose, "model.features=1", "model.activation=sin", "sampler.interior=15")
    w = float(problem.model.get_buffer("weights"))
    for h in (0.3, 0.03):
        expected = 1 - (2 - 2 * math.cos(w * h)) / (w * h) ** 2
        found = only(problem, batch, FiniteDifference(2, h)).numbers["error/u_xx"]
        assert found == pytest.approx(expected, rel=1e-9)
        assert found == pytest.approx((w * h) ** 2 / 12, rel=(w * h) ** 2 / 20)


def test_gradients_are_those_of_a_loss_written_by_hand(compose: Compose) -> None:
    problem, batch = problem_of(compose, *NETWORK)
    h = 0.2
    u, x, ends = problem.model, batch["interior"].x, batch["boundary"].x

    def gradient(second: Tensor) -> Tensor:
        source = math.pi**2 * torch.sin(math.pi * x)
        loss = (second + source).square().mean() + (u(ends) - torch.sin(math.pi * ends)).square().mean()
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(u.parameters()))])

    y = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(u(y).sum(), y, create_graph=True)
    exact = gradient(torch.autograd.grad(slope.sum(), y, create_graph=True)[0])
    wrong = gradient((u(x + h) - 2 * u(x) + u(x - h)) / h**2)

    numbers = only(problem, batch, FiniteDifference(2, h)).numbers
    cosine = torch.nn.functional.cosine_similarity(wrong, exact, dim=0)
    assert 1 - numbers["gradient_cosine"] > 1e-9  # so that there is something to compare
    assert 1 - numbers["gradient_cosine"] == pytest.approx(1 - float(cosine), abs=1e-14)
    assert numbers["gradient_ratio"] == pytest.approx(float(wrong.norm() / exact.norm()), rel=1e-12)
    assert numbers["gradient_error"] == pytest.approx(float((wrong - exact).norm() / exact.norm()), rel=1e-9)


@pytest.mark.parametrize(
    "overrides",
    [
        [*TRAINED, "differentiator=finite_difference/1e-3"],
        ["model.features=15", "sampler.interior=30", "pde=biharmonic_1d", "differentiator=finite_difference/1e-3"],
        [*TRAINED, "pde=poisson_2d", "sampler.interior=16", "differentiator=stochastic"],
    ],
)
@pytest.mark.usefixtures("without_figures")
def test_the_run_s_own_differentiator_is_compared_with_the_spectrum_and_residual_of_the_run(
    compose: Compose, tmp_path: Path, overrides: list[str]
) -> None:
    experiment = build(compose(*overrides, *QUICK))
    own = {"own": experiment.problem.differentiator}
    record = run(replace(experiment, diagnostics=replace(compared(experiment), differentiators=own)), tmp_path)
    assert np.array_equal(record.comparison["own"].spectrum.values, record.spectra[max(record.spectra)].values)
    last = record.last()
    for key in ("spectrum/min", "entropy/1e-08", "entropy_raw/1e-14", "effective_rank/1e-04"):
        assert last[f"compare/own/{key}"] == last[key]
    if not isinstance(own["own"], Stochastic):
        # least squares takes it from A a, whose rounding is not that of u'''' itself
        assert last["compare/own/residual"] == pytest.approx(
            last["residual"], rel=1e-2 if "model.features=15" in overrides else 1e-12
        )


@pytest.mark.parametrize("how", ["stochastic", "finite_difference"])
@pytest.mark.usefixtures("without_figures")
def test_a_run_ends_in_the_same_bits_with_a_comparison_and_without(compose: Compose, tmp_path: Path, how: str) -> None:
    run_of = ["pde=poisson_nd", "sampler=sobol", *TRAINED, f"differentiator={how}"]
    looks = {"none": ["diagnostics=none"], "compare": [*QUICK, "diagnostics.when=[first,7,last]"]}
    series, states, generators = {}, {}, {}
    for name, more in looks.items():
        experiment = build(compose(*run_of, *more, "optimizer=adam"))
        before = experiment.problem.differentiator
        series[name] = run(experiment, tmp_path / name).series
        states[name], generators[name] = experiment.problem.model.state_dict(), torch.get_rng_state()
        assert experiment.problem.differentiator is before
    for key in ("loss", "error_l2", "residual", "residual_exact"):
        assert series["none"][key] == series["compare"][key]
    assert all(torch.equal(v, states["compare"][k]) for k, v in states["none"].items())
    assert torch.equal(generators["none"], generators["compare"])
    assert sorted(series["compare"]["compare/taylor/residual"]) == [0, 7, 40]


def test_a_comparison_changes_neither_gradients_nor_generators(compose: Compose) -> None:
    problem, batch = problem_of(compose, *NETWORK, "pde=poisson_2d", "sampler.interior=16")
    for p in problem.model.parameters():
        p.grad = torch.full_like(p, 3.0)
    before, state = {k: v.clone() for k, v in problem.model.state_dict().items()}, torch.get_rng_state()
    everything = compared(build(compose(*QUICK))).differentiators
    once, twice = (compare(problem, batch, everything, 10**7, 1) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in problem.model.state_dict().items())
    assert all(bool((p.grad == 3).all()) for p in problem.model.parameters())
    for name in once:  # the same directions, too
        for quantity in set(once[name].numbers) - {"seconds"}:
            assert once[name].numbers[quantity] == twice[name].numbers[quantity], (name, quantity)
        assert np.array_equal(once[name].spectrum.values, twice[name].spectrum.values)


class Erfinv(nn.Module):
    """A model with an operation that Taylor mode has no rule for; torch differentiates it as often as asked."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.3]], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.erfinv(0.2 * torch.tanh(x @ self.weight))


class Broken(Differentiator):
    def partials(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> dict[Axes, Tensor]:
        raise ZeroDivisionError("division by zero")


def test_what_cannot_serve_a_field_is_left_out_and_another_oracle_takes_its_place(
    compose: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    problem, batch = problem_of(compose, "sampler.interior=10")
    here = replace(problem, model=Erfinv())
    choices = {"taylor": Taylor(), "reverse": Reverse(), "forward": Forward(), "broken": Broken()}
    choices |= {"optimal": FiniteDifference(2, "optimal"), "four": FiniteDifference(4), "hybrid": Hybrid()}
    found = compare(here, batch, choices, 10**6, 1)
    assert set(found) == {"reverse", "forward", "four", "hybrid"}
    assert "taylor is left out of the comparison: differentiator=taylor has no rule for the operation" in caplog.text
    assert "broken is left out of the comparison: division by zero" in caplog.text
    errors = {name: measured.numbers["error/u_xx"] for name, measured in found.items()}
    assert max(errors["reverse"], errors["forward"]) < 1e-13
    assert 1e-13 < errors["four"] < 1e-6


def test_no_differentiator_is_its_own_oracle(compose: Compose) -> None:
    """Where one agreed with itself, a fault that is added to it would not be seen."""

    class OffTaylor(Taylor):
        def partials(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> dict[Axes, Tensor]:
            return {a: 1.5 * v if a else v for a, v in super().partials(u, x, axes).items()}

        __call__ = Differentiator.__call__

    problem, batch = problem_of(compose, *NETWORK)
    assert only(problem, batch, OffTaylor()).numbers["error/u_xx"] == pytest.approx(0.5, rel=1e-9)
    for one in (Taylor(), Stochastic(), Reverse(), Forward(), ComplexStep()):
        assert 0 < only(problem, batch, one).numbers["error/u_xx"] < 1e-13, one


def test_float32_is_measured_against_float64(compose: Compose) -> None:
    problem, batch = problem_of(compose, *NETWORK, "accelerator.precision=float32")
    numbers = only(problem, batch, Reverse()).numbers
    assert 1e-8 < numbers["error/u_xx"] < 1e-5
    assert 1e-9 < numbers["gradient_error"] < 1e-5
    assert next(problem.model.parameters()).dtype == torch.float32


@dataclass(frozen=True)
class Slope(PDE):
    """u' = cos x on [0, 1], and nothing else: the last bias of a network has no part in it."""

    weights: dict[str, float] = field(default_factory=dict)
    coordinates = ("x",)
    domain = Box((0.0,), (1.0,))

    def exact(self, d: Jet) -> Tensor:
        return torch.sin(d.x)

    @on("interior", needs="u_x")
    def slope(self, d: Jet) -> Tensor:
        return d.u_x - torch.cos(d.x)


def test_a_parameter_without_a_part_in_the_equation_has_gradient_zero(compose: Compose) -> None:
    problem, _ = problem_of(compose, *NETWORK)
    here = replace(problem, pde=Slope())
    batch = here.draw(np.random.default_rng(0))
    found = compare(here, batch, {"reverse": Reverse(), "difference": FiniteDifference(2, 1e-3)}, 10**6, 1)
    assert found["reverse"].numbers["gradient_error"] < 1e-14
    assert 1e-10 < found["difference"].numbers["gradient_error"] < 1e-5


N = 1000


def peak(work: Callable[[], object]) -> int:
    with PeakMemory() as memory:
        work()
    return memory.peak


def chained() -> None:
    a = torch.zeros(N)
    for _ in range(5):
        a = a + 1  # the old and the new


def kept_by_a_view() -> Tensor:
    a = torch.zeros(N)
    b = a[:10]
    del a
    torch.zeros(N)
    return b


def freed_before() -> None:
    a = torch.zeros(3 * N)
    del a
    torch.zeros(N)


def grown() -> None:
    a = torch.zeros(10)
    a.resize_(N)
    torch.zeros(1)


def saved_by_autograd(w: Tensor) -> tuple[Tensor, ...]:
    y = w.exp().exp().exp()  # each saves its result
    return torch.autograd.grad(y.sum(), w)


@pytest.mark.parametrize(
    ("work", "floats"),
    [
        (lambda: torch.zeros(N), N),
        (lambda: torch.ones(N).view(10, -1).t()[::2], N),
        (lambda: torch.ones(N).add_(1).mul_(2), N),
        (lambda: [torch.zeros(N) for _ in range(5)], 5 * N),
        (lambda: torch.tensor([1.0] * N) + torch.tensor([2.0] * N), 3 * N),
        (lambda: torch.zeros(2 * N).split(N), 2 * N),
        (lambda: torch.vmap(lambda row: 2 * row)(torch.ones(10, N // 10)), 2 * N),
        (chained, 2 * N),
        (kept_by_a_view, 2 * N),
        (freed_before, 3 * N),
        (grown, N + 1),
        (lambda: None, 0),
    ],
)
def test_peak_memory_of_cases_counted_by_hand(work: Callable[[], object], floats: int) -> None:
    assert peak(work) == 4 * floats


def test_peak_memory_counts_what_autograd_saves_and_nothing_older() -> None:
    w = torch.linspace(0, 0.1, N)
    assert peak(lambda: w.view(-1)[::2]) == 0
    assert peak(lambda: w.mul_(1)) == 0
    with torch.no_grad():
        assert peak(lambda: w.exp().exp().exp()) == 4 * 2 * N  # the last two
    w.requires_grad_()
    assert peak(lambda: w.exp().exp().exp()) == 4 * 3 * N
    assert peak(lambda: saved_by_autograd(w)) >= 4 * 4 * N  # and a gradient beside them
    assert peak(lambda: saved_by_autograd(w)) == peak(lambda: saved_by_autograd(w))


def test_memory_is_that_of_one_gradient_and_grows_with_the_points(compose: Compose) -> None:
    few, many = (
        only(*problem_of(compose, *NETWORK, f"sampler.interior={n}"), Taylor()).numbers["memory"] for n in (200, 800)
    )
    assert few > 200 * 6 * 8 * 3  # three Taylor coefficients of the hidden layer
    assert 3.5 < many / few <= 4


def test_everything_of_a_comparison_is_in_the_folder_and_in_mlflow(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    experiment = build(compose(*TRAINED, *QUICK, "tracking=mlflow", f"tracking.uri={uri}"))
    record = run(experiment, tmp_path / "run")
    client = MlflowClient(uri)
    (stored,) = client.search_runs([client.get_experiment_by_name("pde_train").experiment_id])
    names = compared(experiment).differentiators
    for name in names:
        quantities = ["error/u_xx", "residual", "gradient_cosine", "gradient_ratio", "seconds", "memory"]
        quantities += ["spectrum/min", *(f"entropy/{a:.0e}" for a in experiment.entropy.thresholds)]
        for key in (f"compare/{name}/{q}" for q in quantities):
            rows = client.get_metric_history(stored.info.run_id, key)
            assert {m.step: m.value for m in rows} == record.series[key]
            assert sorted(m.step for m in rows) == [0, 40]
    paths = {a.path for a in client.list_artifacts(stored.info.run_id)}
    pictures = {a.path for a in client.list_artifacts(stored.info.run_id, "figures")}
    assert "comparison.csv" in paths
    assert {"figures/comparison.png", "figures/compared_singular_values.png"} <= pictures
    for picture in ("comparison", "compared_singular_values"):
        image = imread(tmp_path / "run" / "figures" / f"{picture}.png")
        assert image[..., :3].std() > 0.02
    with (tmp_path / "run" / "comparison.csv").open() as file:
        table = {row.pop("differentiator"): row for row in csv.DictReader(file)}
    last = {name: measured.numbers for name, measured in record.comparison.items()}
    assert {n: {q: float(v) for q, v in row.items()} for n, row in table.items()} == last
    assert list(table) == list(names)


@pytest.mark.usefixtures("without_figures")
def test_a_run_leaves_nothing_of_an_older_comparison_in_its_folder(compose: Compose, tmp_path: Path) -> None:
    run_config(compose("model.features=4", "diagnostics=none"), tmp_path, {}, [])
    stale = [tmp_path / "comparison.csv", tmp_path / "figures" / "comparison.png"]
    for file in stale:
        file.write_text("of another run")
    run_config(compose("model.features=5", "diagnostics=none"), tmp_path, {}, [])
    assert not any(file.exists() for file in stale)


@pytest.mark.usefixtures("without_figures")
def test_a_resumed_comparison_ends_as_an_undisturbed_one(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    monkeypatch.chdir(tmp_path)
    looks = [*TRAINED, *QUICK, *FEW, "diagnostics.when=[first,10,25,last]", "method.checkpoint_every=10"]
    looks += ["pde=poisson_2d", "sampler.interior=16", "differentiator=stochastic", "tracking=mlflow"]
    stores = {name: f"tracking.uri=sqlite:///{tmp_path / name}.db" for name in ("whole", "broken")}
    whole = run(build(compose(*looks, stores["whole"])), tmp_path / "whole")
    written = []

    def fsync(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(RunError, match="no space left"):
        run_config(compose(*looks, stores["broken"]), tmp_path / "broken", {}, [])
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    resumed = build(compose(*looks, stores["broken"]))
    record = run(resumed, tmp_path / "broken")  # from step 20

    assert measurements(record) == measurements(whole)
    assert record.comparison.keys() == whole.comparison.keys()
    assert all(
        np.array_equal(m.spectrum.values, whole.comparison[k].spectrum.values) for k, m in record.comparison.items()
    )
    assert sorted(record.series["compare/stochastic/seconds"]) == [0, 10, 25, 40]
    client = MlflowClient(stores["broken"].removeprefix("tracking.uri="))
    (stored,) = client.search_runs([client.get_experiment_by_name("pde_train").experiment_id])
    for key in ("compare/stochastic/residual", "compare/taylor/spectrum/max", "compare/hybrid/seconds", "loss"):
        steps = [m.step for m in client.get_metric_history(stored.info.run_id, key)]
        assert sorted(steps) == sorted(record.series[key])


@pytest.mark.usefixtures("without_figures")
def test_a_checkpoint_holds_the_spectra_that_were_compared(compose: Compose, tmp_path: Path) -> None:
    record = run(build(compose(*TRAINED, *QUICK, "diagnostics.when=[first]")), tmp_path)
    other = build(compose(*TRAINED, *QUICK))
    fresh = type(record)(other.tracker, other.entropy)
    fresh.load_state_dict(record.state_dict())
    assert list(fresh.comparison) == list(record.comparison)
    assert all(
        np.array_equal(m.spectrum.values, fresh.comparison[k].spectrum.values) for k, m in record.comparison.items()
    )


NUMBERS = {
    "error/u_t": 1e-11,
    "error/u_x": 2e-11,
    "error/u_xx": 3.4e-8,
    "residual": 2.0625,
    "gradient_cosine": 1 - 1e-7,
    "gradient_ratio": 1 - 3e-5,
    "gradient_error": 1e-4,
    "spectrum/min": 2.6e-12,
    "spectrum/count/1e-12": 101.0,
    "entropy/1e-08": 0.44731,
    "seconds": 2.5e-3,
    "memory": 150_000.0,
}


@pytest.mark.parametrize("width", [80, 140])
def test_the_table_fits_the_terminal_and_cuts_nothing_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    monkeypatch.setattr(tables, "WIDE", width)
    tables.show_comparison({"finite_difference_richardson": NUMBERS, "mine[1]": NUMBERS})
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= width
    assert "…" not in printed
    cells = ["1.0e-11", "2.0e-11", "3.4e-08", "2.06", "1.0e-07", "-3.0e-05", "2.6e-12", "101", "0.4473", "2.50", "0.15"]
    for cell in [*cells, "error of u_xx", "1 - cosine", "|gradient| - 1", "H_A(1e-8)", "MB", "mine[1]"]:
        assert f" {cell} " in printed


def test_one_table_where_the_terminal_has_the_room(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tables, "WIDE", 200)
    tables.show_comparison({"reverse": NUMBERS})
    assert capsys.readouterr().out.count("derivatives") == 1


def test_what_is_no_number_is_a_dash_in_the_table_and_no_point_in_the_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nan = dict.fromkeys(NUMBERS, math.nan) | {"seconds": 1e-3, "memory": 1e6}
    short = {"seconds": 1e-3}  # as a result.json gives it back, without its nulls
    infinite = NUMBERS | {"error/u_x": math.inf, "gradient_error": math.inf}
    tables.show_comparison({"nan": nan, "short": short, "infinite": infinite})
    rows = [line for line in capsys.readouterr().out.splitlines() if "│ nan" in line]
    assert "0.0e+00" not in "".join(rows)  # not a cosine of 1
    assert "".join(rows).count(" - ") >= 9
    drawn = figures.comparison(
        {"nan": nan, "infinite": infinite, "good": NUMBERS, "short": short | {"gradient_error": 1}}
    )
    drawn.draw_without_rendering()


def test_the_legend_of_many_spectra_stands_beside_the_panel() -> None:
    index = np.arange(1.0, 31)
    lines = {f"differentiator_{i}": [(index, np.logspace(0, -i - 1, 30))] for i in range(11)}
    figure = plots.bands({"Same parameters": lines}, "index k", "singular value s_k", "y", marks="o")
    figure.draw_without_rendering()
    (axes,) = figure.axes
    panel, legend = axes.get_window_extent(), axes.get_legend().get_window_extent()
    assert legend.x0 >= panel.x1
    assert legend.x1 <= figure.bbox.x1
    assert legend.y0 >= figure.bbox.y0


@pytest.mark.usefixtures("without_figures")
def test_a_randomised_spectrum_leaves_dashes_and_a_run_that_ends(
    compose: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_config(compose(*TRAINED, *QUICK, "diagnostics.max_dense=100"), tmp_path, {}, [])
    found = result.comparison
    assert math.isnan(found["taylor"]["spectrum/min"] or 0.0)
    tables.show_comparison(found)
    assert "…" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["diagnostics.repeats=0"], "diagnostics.repeats=0 times nothing: expected a positive integer"),
        (["diagnostics.when=last"], "diagnostics.when=last does not fit: expected a list"),
        (["diagnostics.differentiators=5"], "diagnostics.differentiators=5 does not fit: expected keys with values"),
        (["diagnostics.differentiators=null"], "diagnostics.differentiators=null does not fit"),
        (["diagnostics.rows=columns"], "diagnostics.rows=columns is unknown: expected one of loss, points"),
        (["+diagnostics.differentiators.mine=5"], "diagnostics.differentiators has mine to compare"),
        (["diagnostics.differentiators.forward._target_=os.system"], "is not trusted"),
    ],
)
def test_bad_values_are_one_sentence(compose: Compose, overrides: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        build(compose("diagnostics=compare", *overrides))


def test_one_may_be_left_out_and_another_added(compose: Compose) -> None:
    more = ["+diagnostics.differentiators.mine._target_=pde_train.differentiators.hybrid.Hybrid"]
    differentiators = compared(
        build(compose("diagnostics=compare", "~diagnostics.differentiators.forward", *more))
    ).differentiators
    assert "forward" not in differentiators
    assert differentiators["mine"] == Hybrid()

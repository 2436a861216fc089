"""Damped least squares against dense formulas, and the steps that are built on them."""

import copy
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures import Compose, interpret
from torch import Tensor, nn

from pde_train.errors import UsageError
from pde_train.experiment import build
from pde_train.methods.trained import Trained
from pde_train.optimizers import damped
from pde_train.optimizers.conjugate_gradients import Product
from pde_train.optimizers.gauss_newton import GaussNewton, Step
from pde_train.runs.run import run
from pde_train.tracking.record import Record
from pde_train.training.rows import CompiledRows, EagerRows

SMALL = ["method=gauss_newton", "model=two_layer", "model.width=8", "sampler.interior=36", "diagnostics=none"]


def matrix(n: int, p: int, smallest: float = 1e-3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A Jacobian with singular values from 1 to `smallest`, and a residual."""
    generator = np.random.default_rng(seed)
    left = np.linalg.qr(generator.normal(size=(n, min(n, p))))[0]
    right = np.linalg.qr(generator.normal(size=(p, min(n, p))))[0]
    values = np.geomspace(1, smallest, min(n, p))
    return torch.from_numpy(left * values @ right.T), torch.from_numpy(generator.normal(size=n))


def exact_step(jacobian: Tensor, residual: Tensor, damping: float) -> np.ndarray:
    """The minimum of |J d + r|^2 + mu |d|^2 as an ordinary least-squares problem with sqrt(mu) I below J."""
    j, r = jacobian.numpy(), residual.numpy()
    left = np.concatenate([j, math.sqrt(damping) * np.eye(j.shape[1])])
    return np.linalg.lstsq(left, -np.concatenate([r, np.zeros(j.shape[1])]), rcond=None)[0]


def products(jacobian: Tensor) -> tuple[Product, Product]:
    return (lambda v: jacobian @ v), (lambda w: jacobian.T @ w)


SOLVERS = {
    "svd": lambda j, r: damped.SVD(j, r),
    "qr": lambda j, r: damped.QR(j, r),
    "cholesky": lambda j, r: damped.Cholesky(j, r),
    "dual": lambda j, r: damped.Dual(j, r),
    "cg": lambda j, r: damped.Conjugate(*products(j), r, j.shape[1], torch.Generator().manual_seed(0)),
    "sketched": lambda j, r: damped.Sketched(
        products(j)[0], r, j.shape[1], j.shape[1], torch.Generator().manual_seed(1)
    ),
}


@pytest.mark.parametrize("shape", [(50, 12), (12, 12), (9, 30)])
@pytest.mark.parametrize("damping", [1e-6, 1e-2, 10.0])
@pytest.mark.parametrize("solver", ["svd", "qr", "cholesky", "dual", "cg"])
def test_a_step_solves_the_damped_problem(solver: str, shape: tuple[int, int], damping: float) -> None:
    jacobian, residual = matrix(*shape)
    expected = exact_step(jacobian, residual, damping)
    problem = SOLVERS[solver](jacobian, residual)
    condition = 1 / (damping + (1e-6 if solver in ("svd", "qr") else 0.0))
    tolerance = 1e-8 if solver == "cg" else 1e-13
    assert (
        np.abs(problem.step(damping).numpy() - expected).max()
        <= tolerance * max(10.0, condition) * np.abs(expected).max()
    )
    assert torch.allclose(problem.image(torch.from_numpy(expected)), jacobian @ torch.from_numpy(expected))


def test_only_squaring_solvers_lose_small_singular_values() -> None:
    """At a condition of 1e10 the steps of SVD and QR still agree with the exact one, that of J^T J does not."""
    jacobian, residual = matrix(40, 10, smallest=1e-10)
    expected = exact_step(jacobian, residual, 1e-22)
    error = {
        name: np.abs(SOLVERS[name](jacobian, residual).step(1e-22).numpy() - expected).max() / np.abs(expected).max()
        for name in ("svd", "qr", "cholesky")
    }
    assert error["svd"] < 1e-4
    assert error["qr"] < 1e-4
    assert not error["cholesky"] < 1e-2


def test_singular_values_are_those_of_the_jacobian() -> None:
    jacobian, residual = matrix(50, 12)
    values = damped.SVD(jacobian, residual).values
    assert np.abs(values.numpy() - np.geomspace(1, 1e-3, 12)).max() < 1e-14


def test_a_sketch_minimises_in_its_subspace() -> None:
    jacobian, residual = matrix(50, 12)
    problem = damped.Sketched(products(jacobian)[0], residual, 12, 5, torch.Generator().manual_seed(1))
    basis = problem.basis.numpy()
    expected = basis @ exact_step(jacobian @ problem.basis, residual, 1e-3)
    assert np.abs(problem.step(1e-3).numpy() - expected).max() < 1e-12
    assert set(np.unique(np.abs(basis))) == {1 / math.sqrt(5)}


@pytest.mark.parametrize("radius", [1e-3, 0.1, 1.0])
def test_a_radius_has_its_damping(radius: float) -> None:
    jacobian, residual = matrix(50, 12)
    problem = damped.SVD(jacobian, residual)
    assert float(problem.step(problem.damping_of(radius)).norm()) == pytest.approx(radius, rel=1e-9)


class Exponentials:
    """Rows r_i = sum_k a_k exp(-b_k t_i) - y_i, for x = (a, b)."""

    def __init__(self) -> None:
        self.t = torch.linspace(0, 3, 30, dtype=torch.float64)
        self.y = self.model(torch.tensor([1.0, -0.5, 0.7, 2.0], dtype=torch.float64))

    def model(self, x: Tensor) -> Tensor:
        return (x[:2] * torch.exp(-self.t[:, None] * x[2:])).sum(1)

    def residual(self, x: Tensor) -> Tensor:
        return self.model(x) - self.y

    def jacobian(self, x: Tensor) -> Tensor:
        return torch.func.jacrev(self.residual)(x)

    def products(self, x: Tensor) -> tuple[Product, Product]:
        return products(self.jacobian(x))


OPTIONS = [
    {},
    {"solver": "qr"},
    {"solver": "cholesky"},
    {"solver": "cg"},
    {"solver": "sketched", "sketch": 1.0},
    {"damping": "ladder"},
    {"damping": "fixed", "initial": 1e-8},
    {"momentum": 0.5},
    {"first_precision": "float32"},
    {"first_precision": "float32", "momentum": 0.5},
    {"first_precision": "float32", "damping": "ladder"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_nonlinear_fit_is_found(options: dict[str, Any]) -> None:
    rows, x = Exponentials(), nn.Parameter(torch.tensor([0.8, -0.4, 0.6, 1.8], dtype=torch.float64))
    optimizer = GaussNewton([x], **options)
    steps = [optimizer.step(rows)]
    while steps[-1].lowered and len(steps) < 200:
        steps.append(optimizer.step(rows))
    losses = [s.loss for s in steps]
    assert all(b <= a for a, b in itertools.pairwise(losses))  # no step ever raises the loss
    assert losses[-1] < 1e-14
    assert torch.equal(steps[0].residual, rows.residual(x)) is False
    assert torch.allclose(steps[-1].residual, rows.residual(x.detach()))


def test_nielsens_damping_follows_the_gain_ratio() -> None:
    """On a linear problem the model is exact: the gain ratio is 1 and the damping falls by its largest factor."""

    class Linear:
        j, r = matrix(30, 5)

        def products(self, x: Tensor) -> tuple[Product, Product]:
            return products(self.j)

        def residual(self, x: Tensor) -> Tensor:
            return self.j @ x + self.r

        def jacobian(self, x: Tensor) -> Tensor:
            return self.j

    x = nn.Parameter(torch.zeros(5, dtype=torch.float64))
    optimizer = GaussNewton([x], initial=1e-2)
    dampings = [optimizer.step(Linear()).damping for _ in range(4)]
    assert np.allclose(dampings, 1e-2 * 0.1 ** np.arange(1, 5), rtol=1e-6)


@pytest.mark.parametrize("solver", ["svd", "qr", "cholesky", "dual"])
def test_a_first_round_rounds_the_decomposition_and_nothing_else(solver: str) -> None:
    """Its step is the exact one up to the condition times eps of float32; residual and loss have all digits."""
    j, r = matrix(30, 5)

    class Linear:
        def residual(self, x: Tensor) -> Tensor:
            return j @ x + r

        def jacobian(self, x: Tensor) -> Tensor:
            return j

        def products(self, x: Tensor) -> tuple[Product, Product]:
            return products(j)

    x = nn.Parameter(torch.zeros(5, dtype=torch.float64))
    step = GaussNewton([x], solver=solver, initial=0.1, first_precision="float32").step(Linear())
    expected = exact_step(j, r, 0.1 * float(j.square().sum(0).max()))
    difference = np.abs(x.detach().numpy() - expected).max() / np.abs(expected).max()
    assert step.rounded
    assert x.dtype == step.residual.dtype == torch.float64
    assert (
        1e-12 < difference < 1e-4
    )  # the condition of the damped system is at most 1 / 0.1 + 1, squared by two solvers
    assert step.loss == float(r @ r)
    assert torch.equal(step.residual, Linear().residual(x.detach()))


def test_a_jacobian_in_float32_is_decomposed_in_float64_where_that_is_asked_for() -> None:
    """The step is that of exact arithmetic for J and r as they are in float32; float32 itself loses it."""
    double, right = matrix(30, 5, smallest=1e-6)
    j, r = double.float(), right.float()

    class Linear:
        def residual(self, x: Tensor) -> Tensor:
            assert x.dtype == torch.float32
            return j @ x + r

        def jacobian(self, x: Tensor) -> Tensor:
            return j

        def products(self, x: Tensor) -> tuple[Product, Product]:
            return products(j)

    expected = exact_step(j.double(), r.double(), 1e-10 * float(j.square().sum(0).max()))
    differences = {}
    for precision in ("float64", None):
        optimizer = GaussNewton([nn.Parameter(torch.zeros(5))], initial=1e-10, linear_algebra=precision)
        taken = optimizer._linear(Linear(), torch.zeros(5), r, torch.zeros(5), 0, optimizer.linear_algebra or j.dtype)
        found = taken.step(1e-10 * taken.scale).double().numpy()
        differences[precision] = np.abs(found - expected).max() / np.abs(expected).max()
    assert differences["float64"] < 1e-8
    assert differences[None] > 1e-3
    x = nn.Parameter(torch.zeros(5))
    step = GaussNewton([x], initial=1e-10, linear_algebra="float64").step(Linear())
    assert x.dtype == step.residual.dtype == torch.float32
    assert step.lowered


def test_float64_goes_on_where_float32_ends() -> None:
    """The rows of small singular values are beyond float32, and found in the second round."""
    j, _ = matrix(40, 10, smallest=1e-10)

    class Hidden:
        solution = torch.linspace(-1, 1, 10, dtype=torch.float64)

        def residual(self, x: Tensor) -> Tensor:
            return j @ (x - self.solution)

        def jacobian(self, x: Tensor) -> Tensor:
            return j

        def products(self, x: Tensor) -> tuple[Product, Product]:
            return products(j)

    def steps(optimizer: GaussNewton, count: int) -> list[Step]:
        return [optimizer.step(Hidden()) for _ in range(count)]

    x, other = (nn.Parameter(torch.zeros(10, dtype=torch.float64)) for _ in range(2))
    optimizer = GaussNewton([x], first_precision="float32")
    taken = steps(optimizer, 200)
    first = [step.rounded for step in taken].index(False)
    assert 0 < first < 150
    assert not any(step.rounded for step in taken[first:])
    losses = [step.loss for step in taken]
    assert all(b <= a for a, b in itertools.pairwise(losses))
    assert losses[-1] < 1e-4 * losses[first]
    assert float((x.detach() - Hidden.solution).norm()) < 1e-3

    resumed = GaussNewton([other], first_precision="float32")
    steps(resumed, first - 1)
    saved = copy.deepcopy(resumed.state_dict())
    resumed = GaussNewton([other], first_precision="float32")
    resumed.load_state_dict(saved)
    assert [step.loss for step in steps(resumed, 200 - first + 1)] == losses[first - 1 :]
    assert torch.equal(x, other)


def test_a_first_round_that_fails_leaves_the_damping() -> None:
    """All trials of its last step fail; the damping of the next round is that before them."""
    start = torch.tensor([0.5, 0.5, 0.1, 1.0], dtype=torch.float64)

    class Walled(Exponentials):
        def residual(self, x: Tensor) -> Tensor:
            return super().residual(x) + (0.0 if torch.equal(x, start) else 1e9)

        def jacobian(self, x: Tensor) -> Tensor:
            return Exponentials().jacobian(x)

    x = nn.Parameter(start.clone())
    optimizer = GaussNewton([x], initial=0.25, first_precision="float32")
    step = optimizer.step(Walled())
    assert (step.lowered, step.rounded, optimizer.in_first_round) == (False, True, False)
    assert step.damping == pytest.approx(0.25)
    assert torch.equal(x.detach(), start)


def test_spring_is_its_published_form() -> None:
    """phi' = m phi + J^T (J J^T + mu I)^-1 (-r - m J phi), one step after another, where each lowers the loss."""
    rows, start = Exponentials(), torch.tensor([0.9, -0.4, 0.6, 1.8], dtype=torch.float64)
    x = nn.Parameter(start.clone())
    optimizer, damping, m = GaussNewton([x], momentum=0.3, solver="dual", initial=1.0), None, 0.3
    phi, at = torch.zeros(4, dtype=torch.float64), start
    for _ in range(3):
        j, r = rows.jacobian(at), rows.residual(at)
        damping = float(j.square().sum(0).max()) if damping is None else damping
        kernel = j @ j.T + damping * torch.eye(30)
        phi = m * phi + j.T @ torch.linalg.solve(kernel, -r - m * j @ phi)
        at = at + phi
        found = optimizer.step(rows)
        assert found.lowered
        assert torch.allclose(x.detach(), at, rtol=1e-8, atol=0)
        damping = found.damping * float(j.square().sum(0).max())


def test_a_failed_step_changes_nothing() -> None:
    class Flat(Exponentials):
        def residual(self, x: Tensor) -> Tensor:
            return torch.where(torch.equal(x, START) * torch.ones(30, dtype=torch.bool), super().residual(x), 1e9)

    START = torch.tensor([0.5, 0.5, 0.1, 1.0], dtype=torch.float64)
    x = nn.Parameter(START.clone())
    optimizer = GaussNewton([x])
    step = optimizer.step(Flat(), Exponentials().residual(START))
    assert not step.lowered
    assert torch.equal(x.detach(), START)


@pytest.mark.parametrize("differentiator", ["taylor", "finite_difference", "complex_step"])
def test_rows_are_the_loss_and_its_gradient(compose: Compose, differentiator: str) -> None:
    experiment = build(compose(*SMALL, "pde=poisson_2d", f"differentiator={differentiator}"))
    problem = experiment.problem
    batch = problem.draw(np.random.default_rng(0))
    problem.begin(batch, problem.model)
    rows = EagerRows(problem, batch)
    x = torch.cat([p.detach().flatten() for p in rows.parameters])
    loss = problem.loss(batch)
    loss.backward()
    loss = loss.detach()
    tolerance = 1e-6 if differentiator == "finite_difference" else 1e-9  # rows of single points round differently
    gradient = torch.cat([p.grad.flatten() for p in rows.parameters])
    residual, jacobian = rows.residual(x), rows.jacobian(x)
    assert float(residual @ residual) == pytest.approx(float(loss), rel=1e-12)
    assert torch.allclose(
        2 * jacobian.T @ residual, gradient, rtol=tolerance, atol=tolerance * float(gradient.abs().max())
    )
    forward, back = rows.products(x)
    vectors = torch.randn(len(x), 3, dtype=torch.float64)
    assert torch.allclose(forward(vectors), jacobian @ vectors, rtol=1e-5, atol=1e-5)
    assert torch.allclose(forward(vectors[:, 0]), jacobian @ vectors[:, 0], rtol=1e-5, atol=1e-5)
    assert torch.allclose(back(residual), jacobian.T @ residual, rtol=1e-5, atol=1e-5)
    before = forward(vectors), back(residual)
    rows.residual(x + 0.1)  # a trial, which changes the parameters of the model
    assert torch.equal(forward(vectors), before[0])
    assert torch.equal(back(residual), before[1])


def test_compiled_rows_are_the_eager_ones_in_blocks_too(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    from pde_train.training import rows as module

    monkeypatch.setattr(module, "BLOCK_ROWS", 15)
    experiment = build(compose(*SMALL, "pde=burgers_1d", "sampler=uniform"))
    problem = experiment.problem
    batch = problem.draw(np.random.default_rng(0))
    eager, compiled = EagerRows(problem, batch), CompiledRows(problem, batch)
    compiled.compile()
    x = torch.cat([p.detach().flatten() for p in eager.parameters])
    for change in (0.0, 0.1):
        a, b = eager.jacobian(x + change), compiled.jacobian(x + change)
        assert a.shape == b.shape
        assert torch.allclose(a.T @ a, b.T @ b, rtol=1e-11, atol=1e-11)
        assert float(eager.residual(x).square().sum()) == pytest.approx(
            float(compiled.residual(x).square().sum()), rel=1e-12
        )
    other = problem.draw(np.random.default_rng(5))
    eager.batch = other
    compiled.place(other)
    assert float(eager.residual(x).square().sum()) == pytest.approx(
        float(compiled.residual(x).square().sum()), rel=1e-12
    )


def test_compiled_rows_follow_the_steps_that_finite_differences_choose(compose: Compose) -> None:
    words = ["differentiator=finite_difference", "differentiator.step=optimal", "differentiator.accuracy=8"]
    problem = build(compose(*SMALL, "pde=poisson_1d", *words)).problem
    batch = problem.draw(np.random.default_rng(0))
    problem.begin(batch)
    eager, compiled = EagerRows(problem, batch), CompiledRows(problem, batch)
    for functions in (compiled.residuals, compiled.jacobians):
        for function in functions:
            interpret(function)
    compiled.place(batch)
    x, generator = torch.cat([p.detach().flatten() for p in eager.parameters]), torch.Generator().manual_seed(0)
    residuals = []
    for _ in range(2):
        a, b = eager.jacobian(x), compiled.jacobian(x)
        assert torch.allclose(a.T @ a, b.T @ b, rtol=1e-8, atol=1e-8 * float((a.T @ a).max()))
        residuals.append(float(eager.residual(x).square().sum()))
        assert residuals[-1] == pytest.approx(float(compiled.residual(x).square().sum()), rel=1e-8)
        eager.residual(2 * torch.rand(len(x), generator=generator, dtype=x.dtype))  # another field
        problem.tune(problem.model, batch)
        compiled.place(batch)
    assert residuals[0] != residuals[1]


@pytest.mark.usefixtures("without_figures")
def test_it_reaches_far_and_logs_a_spectrum_at_every_step(compose: Compose, tmp_path: Path) -> None:
    experiment = build(compose(*SMALL, "pde=poisson_1d", "method.steps=200", "model.width=20", "method.compile=never"))
    record = run(experiment, tmp_path)
    assert set(record.spectra) == set(range(200))
    assert record.last()["loss"] < 1e-4 * record.series["loss"][0]
    assert all(v > 0 for v in record.series["damping"].values())
    assert record.tags["stopped"].startswith("budget")
    expected = experiment.problem.jacobian(experiment.problem.draw(np.random.default_rng(0))).spectrum(10**8)
    assert expected.values.shape == record.spectra[199].values.shape


@pytest.mark.usefixtures("without_figures")
def test_the_logged_spectrum_is_that_of_the_diagnostics(compose: Compose, tmp_path: Path) -> None:
    """At step 0 the diagnostics take it by themselves; the step would have said the same."""
    settings = [*SMALL[:-1], "diagnostics.when=[first]", "pde=poisson_1d", "method.steps=1", "method.compile=never"]
    record = run(build(compose(*settings)), tmp_path / "a")
    own = run(build(compose(*SMALL, "pde=poisson_1d", "method.steps=1", "method.compile=never")), tmp_path / "b")
    a, b = record.spectra[0].values, own.spectra[0].values
    assert np.abs(a - b).max() < 1e-13 * a[0]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["method.damping=newton"], r"method\.damping=newton is unknown: expected one of nielsen"),
        (["method.solver=lu"], r"method\.solver=lu is unknown: expected one of auto, svd"),
        (["method.initial=0.0"], r"method\.initial=0\.0 is no damping"),
        (["method.momentum=1.0"], r"method\.momentum=1\.0 does not fade"),
        (["method.sketch=2.0"], r"method\.sketch=2\.0 is no part of the parameters"),
        (["method.damping=ladder", "method.solver=qr"], r"damping=ladder needs a singular value decomposition"),
        (["method.solver=sketched", "method.momentum=0.5"], r"solver=sketched has another subspace in each step"),
        (["method.first_precision=float16"], r"method\.first_precision=float16 is no lower precision than float64"),
        (
            ["method.first_precision=float32", "method.solver=cg"],
            r"solver=cg takes products with J, and method\.first_precision=float32 converts J itself",
        ),
        (["method.linear_algebra=float16"], r"method\.linear_algebra=float16 is no higher precision than float32"),
        (
            ["method.linear_algebra=float64", "method.solver=cg"],
            r"solver=cg takes products with J, and method\.linear_algebra=float64 converts J itself",
        ),
        (
            ["method.first_precision=float32", "accelerator.precision=float32"],
            r"first_precision=float32 begins below float64, and the parameters are in float32",
        ),
        (["differentiator=stochastic", "pde=poisson_2d"], r"GaussNewton compares losses, and Stochastic draws other"),
        (["model.width=5000000", "sampler.interior=200", "method.solver=svd"], r"asks for .* choose fewer"),
    ],
)
def test_what_cannot_be_is_refused(compose: Compose, overrides: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=sentence):
        run(build(compose(*SMALL, *overrides)), tmp_path)


class Rounded(nn.Module):
    """A model whose parameters only count when they are rounded."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.7]], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x) @ self.weight.round()


def test_a_model_without_derivatives_by_its_parameters_is_refused(compose: Compose, tmp_path: Path) -> None:
    experiment = build(compose(*SMALL))
    experiment.problem.model = Rounded()
    with pytest.raises(UsageError, match=r"by the parameters of Rounded are 0 or not finite: expected a model that is"):
        run(experiment, tmp_path)


@pytest.mark.parametrize("damping", ["nielsen", "ladder", "fixed"])
def test_rows_that_write_their_trials_are_put_back(damping: str) -> None:
    """Where no step lowers the loss, the parameters are what they were, whatever an evaluation has left there."""
    x = nn.Parameter(torch.tensor([0.5, 0.5, 0.1, 1.0], dtype=torch.float64))
    start = x.detach().clone()

    class Writing(Exponentials):
        def residual(self, at: Tensor) -> Tensor:
            with torch.no_grad():
                x.copy_(at)
            return super().residual(at) + (0.0 if torch.equal(at, start) else 1e6)

        def jacobian(self, at: Tensor) -> Tensor:
            return Exponentials().jacobian(at)

    step = GaussNewton([x], damping=damping).step(Writing())
    assert not step.lowered
    assert torch.equal(x.detach(), start)


@pytest.mark.parametrize(
    ("options", "repeats"),
    [({"damping": d}, True) for d in ("nielsen", "ladder", "fixed")]
    + [({"momentum": 0.9}, True), ({"solver": "cg"}, False)],
)
def test_a_step_that_no_damping_lets_lower_the_loss_is_the_next_one_again(
    options: dict[str, Any], repeats: bool
) -> None:
    """It says so, and not before that is true; where directions are random another step may do better."""

    class Lowest(Exponentials):
        def residual(self, x: Tensor) -> Tensor:
            return super().residual(x) + (0.0 if torch.equal(x, start) else 1e6)

    x = nn.Parameter(torch.tensor([0.5, 0.5, 0.1, 1.0], dtype=torch.float64))
    start = x.detach().clone()
    optimizer = GaussNewton([x], **options)
    steps = [optimizer.step(Lowest()) for _ in range(5)]
    assert [step.lowered for step in steps] == [False] * 5
    assert steps[-1].repeats is repeats
    for step, following in itertools.pairwise(steps):
        if step.repeats:
            assert following.repeats
            assert (following.loss, following.damping) == (step.loss, step.damping)
            assert torch.equal(following.residual, step.residual)


@pytest.mark.usefixtures("without_figures")
def test_steps_that_only_repeat_the_last_one_are_not_computed(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Differences with a short step come to their floor: the run takes all of its steps, and the parameters stay."""
    taken: list[Step] = []
    step = GaussNewton.step
    monkeypatch.setattr(GaussNewton, "step", lambda *own: taken.append(step(*own)) or taken[-1])
    words = ["pde=poisson_1d", "differentiator=finite_difference", "differentiator.step=1e-6", "method.steps=400"]
    record = run(build(compose(*SMALL, *words, "method.compile=never")), tmp_path)
    losses = list(record.series["loss"].values())
    assert len(losses) == len(record.series["damping"]) == 400
    assert len(taken) < 200
    assert taken[-1].repeats
    assert not any(step.repeats for step in taken[:-1])
    assert losses[len(taken) :] == [taken[-1].loss] * (400 - len(taken))
    assert record.tags["stopped"] == "budget: method.steps=400"


@pytest.mark.parametrize(("points", "warned"), [(23, True), (80, False), (6, False)])
def test_a_nearly_square_system_is_said(
    compose: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture, points: int, warned: bool
) -> None:
    """A width of 8 has 25 parameters; two rows more are those of the ends."""
    experiment = build(compose(*SMALL, f"sampler.interior={points}"))
    record = Record(experiment.tracker, experiment.entropy)
    assert isinstance(experiment.method, Trained)
    experiment.method.training(experiment.problem, record, experiment.diagnostics, tmp_path)
    assert ("nearly a square system" in caplog.text) == warned

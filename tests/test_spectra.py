from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

from pde_train import linear_system, residuals
from pde_train.derivatives import Jet
from pde_train.diagnostics.spectrum import SpectrumProbe
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.finite_difference import FiniteDifference
from pde_train.differentiators.reverse import Reverse
from pde_train.errors import UsageError
from pde_train.geometry import Batch, Box
from pde_train.models.mlp import MLP
from pde_train.models.random_features import RandomFeatures
from pde_train.pdes.base import PDE, on
from pde_train.pdes.biharmonic_2d import Biharmonic2D
from pde_train.pdes.poisson_1d import Poisson1D
from pde_train.problem import Problem
from pde_train.samplers.grid import Grid
from pde_train.samplers.uniform import Uniform
from pde_train.spectra import ResidualJacobian, randomised_svd, singular_values

EPS = torch.finfo(torch.float64).eps
EVERYTHING = 10**9


def orthonormal(rows: int, columns: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(rows, columns, generator=generator, dtype=torch.float64)).Q


def with_singular_values(values: Sequence[float] | np.ndarray, n: int, p: int) -> Tensor:
    """A dense (n, p) matrix with these singular values."""
    s = torch.as_tensor(np.array(values), dtype=torch.float64)
    return orthonormal(n, len(s), 0) @ torch.diag(s) @ orthonormal(p, len(s), 1).T


def jacobian_of(matrix: Tensor) -> ResidualJacobian:
    """The residual Jacobian of a linear model: the matrix itself."""
    model = torch.nn.utils.skip_init(torch.nn.Linear, matrix.shape[1], 1, bias=False, dtype=matrix.dtype)
    return ResidualJacobian(model, lambda u: u(matrix))


# --- Singular values of a matrix


@pytest.mark.parametrize("shape", [(9, 5), (5, 9), (5, 5)])
def test_known_singular_values_are_found_in_descending_order(shape: tuple[int, int]) -> None:
    known = np.array([7.0, 3.0, 2.0, 0.5, 0.25])
    found = singular_values(with_singular_values(known[::-1], *shape))
    # LAPACK is backward stable: an absolute error of a few eps s_1
    np.testing.assert_allclose(found, known, rtol=0, atol=20 * EPS * known[0])


def test_small_singular_values_survive_that_squaring_would_lose() -> None:
    known = 10.0 ** -np.arange(13)
    matrix = with_singular_values(known, 40, 20)
    found = singular_values(matrix)
    np.testing.assert_allclose(found[:13], known, rtol=0, atol=20 * EPS)
    squared = np.sqrt(np.abs(torch.linalg.eigvalsh(matrix @ matrix.T).numpy()))
    assert np.abs(np.sort(squared)[::-1][12] - known[12]) > 100 * known[12]


def test_graded_rows_keep_singular_values_far_below_rounding() -> None:
    # 30 rows: LAPACK's divide and conquer, which would replace all below 1e-16 s_1, starts at 26
    grades = 10 ** np.linspace(0, -24, 30)
    matrix = torch.from_numpy(grades)[:, None] * orthonormal(30, 30, 2)
    with mpmath.workdps(50):
        exact = sorted(map(float, mpmath.svd_r(mpmath.matrix(matrix.tolist()), compute_uv=False)), reverse=True)
    assert exact[-1] < 1e-23 * exact[0]
    # dqds is right to a few roundings relative to each value, and so is the reduction of graded rows before it
    np.testing.assert_allclose(singular_values(matrix), exact, rtol=1e3 * EPS)


def test_a_float32_matrix_is_decomposed_in_float64() -> None:
    matrix = with_singular_values([1.0, 1e-3, 1e-5], 6, 4).float()
    found = singular_values(matrix)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, singular_values(matrix.double()))


def test_a_matrix_with_a_graph_is_decomposed_all_the_same() -> None:
    matrix = with_singular_values([2.0, 1.0], 3, 2).requires_grad_()
    np.testing.assert_allclose(singular_values(matrix), [2, 1], rtol=10 * EPS)


# --- The residual Jacobian


def problem(
    pde: PDE,
    hidden: tuple[int, int] = (5, 4),
    interior: int = 36,
    dtype: torch.dtype = torch.float64,
    differentiator: Differentiator | None = None,
) -> Problem:
    model = MLP(pde.domain.dimension, list(hidden), "tanh", seed=3).to(dtype)
    return Problem(pde, model, differentiator or Reverse(), Uniform(interior, 8), dtype)


def jacobian_and_batch(p: Problem) -> tuple[ResidualJacobian, Batch]:
    batch = p.draw(np.random.default_rng(1))
    return p.jacobian(batch), batch


def by_autograd(p: Problem, batch: Batch) -> Tensor:
    """J row by row, by plain backward passes through the module."""
    rows = []
    for r in p.residual_vector(p.model, batch)[:, 0]:
        gradients = torch.autograd.grad(r, list(p.model.parameters()), retain_graph=True, materialize_grads=True)
        rows.append(torch.cat([g.flatten() for g in gradients]))
    return torch.stack(rows)


every_problem = pytest.mark.parametrize(
    ("pde", "differentiator"),
    [
        (Poisson1D(weights={"value": 10.0}), Reverse()),
        (Poisson1D(), FiniteDifference(4)),
        (Biharmonic2D(boundary="clamped"), Reverse()),
    ],
    ids=["poisson", "poisson by differences", "clamped plate"],
)


class Integral(PDE):
    """An equation with an integral in it, so that a residual depends on more than its own point."""

    coordinates = ("x",)
    domain = Box((-1.0,), (1.0,))
    weights: Mapping[str, float] = {}

    def exact(self, d: Jet) -> Tensor:
        return 0 * d.x

    @on("interior", needs="u u_xx")
    def equation(self, d: Jet) -> Tensor:
        return d.u_xx + d.u.mean(0, keepdim=True)


def test_residuals_that_look_beyond_their_point_are_not_differentiated_by_points() -> None:
    p = problem(Integral(), interior=12)
    jacobian, batch = jacobian_and_batch(p)
    assert jacobian.by_points is None
    torch.testing.assert_close(jacobian.dense(), by_autograd(p, batch), rtol=1e-11, atol=1e-13)
    assert problem(Poisson1D()).jacobian(problem(Poisson1D()).draw(np.random.default_rng(0))).by_points is not None


def noise(differentiator: Differentiator) -> float:
    """A relative error of sums of up to 200 rounded products, which finite differences divide by h^2."""
    h = EPS ** (1 / (2 + differentiator.accuracy)) if isinstance(differentiator, FiniteDifference) else 1
    return 1e3 * EPS / h**2


@every_problem
def test_the_jacobian_is_that_of_autograd(pde: PDE, differentiator: Differentiator) -> None:
    p = problem(pde, differentiator=differentiator)
    jacobian, batch = jacobian_and_batch(p)
    expected = by_autograd(p, batch)
    found = jacobian.dense()
    assert jacobian.shape == found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=0, atol=noise(differentiator) * float(expected.norm()))


def test_the_jacobian_is_that_of_differences_by_every_parameter() -> None:
    p = problem(Poisson1D())
    jacobian, batch = jacobian_and_batch(p)
    flat = torch.nn.utils.parameters_to_vector(p.model.parameters()).detach()

    def residual(parameters: Tensor) -> Tensor:
        torch.nn.utils.vector_to_parameters(parameters, p.model.parameters())
        return p.residual_vector(p.model, batch).detach()[:, 0]

    h = 1e-5
    steps = h * torch.eye(len(flat), dtype=flat.dtype)
    columns = [(residual(flat + step) - residual(flat - step)) / (2 * h) for step in steps]
    torch.nn.utils.vector_to_parameters(flat, p.model.parameters())
    # truncation h^2 = 1e-10 times third derivatives up to 100, rounding eps / h = 2e-11
    torch.testing.assert_close(jacobian.dense(), torch.stack(columns, dim=1), rtol=0, atol=1e-8)


@every_problem
def test_rows_and_columns_are_products_with_the_dense_matrix(pde: PDE, differentiator: Differentiator) -> None:
    jacobian, _ = jacobian_and_batch(problem(pde, differentiator=differentiator))
    dense, generator = jacobian.dense(), torch.Generator().manual_seed(5)
    n, p = jacobian.shape
    left = torch.randn(3, n, generator=generator, dtype=torch.float64)
    right = torch.randn(p, 4, generator=generator, dtype=torch.float64)
    atol = noise(differentiator) * float(dense.norm())
    torch.testing.assert_close(jacobian.rows(left), left @ dense, rtol=0, atol=atol)
    torch.testing.assert_close(jacobian.columns(right), dense @ right, rtol=0, atol=atol)


@every_problem
def test_columns_are_the_adjoint_of_rows(pde: PDE, differentiator: Differentiator) -> None:
    jacobian, _ = jacobian_and_batch(problem(pde, differentiator=differentiator))
    generator = torch.Generator().manual_seed(6)
    w = torch.randn(1, jacobian.shape[0], generator=generator, dtype=torch.float64)
    v = torch.randn(jacobian.shape[1], 1, generator=generator, dtype=torch.float64)
    forth, back = float(w @ jacobian.columns(v)), float(jacobian.rows(w) @ v)
    size = float(w.norm() * v.norm()) * float(jacobian.dense().norm())
    assert forth == pytest.approx(back, abs=noise(differentiator) * size)
    assert abs(forth) > 1e-3


def test_the_value_is_the_residual_at_the_present_parameters() -> None:
    p = problem(Poisson1D())
    jacobian, batch = jacobian_and_batch(p)
    torch.testing.assert_close(jacobian.value, p.residual_vector(p.model, batch).detach()[:, 0], rtol=0, atol=100 * EPS)


def test_only_trainable_parameters_count() -> None:
    p = problem(Poisson1D())
    first = p.model.get_submodule("layers.0")
    first.requires_grad_(False)
    jacobian, batch = jacobian_and_batch(p)
    p.model.requires_grad_(True)
    frozen = sum(q.numel() for q in first.parameters())
    torch.testing.assert_close(jacobian.dense(), by_autograd(p, batch)[:, frozen:], rtol=0, atol=1e-11)


def test_the_jacobian_of_random_features_is_their_system_matrix() -> None:
    pde, batch = Poisson1D(), Grid(20, 2).draw(Poisson1D().domain, np.random.default_rng(0))
    model = RandomFeatures(1, 15, "tanh", 3.0, seed=0)
    jacobian = ResidualJacobian(model, lambda u: residuals.stacked(residuals.evaluate(pde, u, Reverse(), batch)))
    matrix, _ = linear_system.assemble(pde, model.features, Reverse(), batch)
    torch.testing.assert_close(jacobian.dense(), matrix.detach(), rtol=0, atol=100 * EPS * float(matrix.abs().max()))


def test_what_wraps_the_blocks_of_rows_gets_each_of_them_once() -> None:
    jacobian, seen = jacobian_of(with_singular_values([3.0, 2.0, 1.0], 70, 4)), []
    rows = jacobian.dense(lambda blocks: (seen.append(len(block)) or block for block in blocks))
    assert seen == [32, 32, 6]
    assert torch.equal(rows, jacobian.dense())


def test_the_jacobian_leaves_no_gradients_behind() -> None:
    p = problem(Poisson1D())
    jacobian_and_batch(p)[0].dense()
    assert [q.grad for q in p.model.parameters()] == [None] * len(list(p.model.parameters()))


# --- Randomised singular values


def test_a_dense_spectrum_says_so() -> None:
    found = jacobian_of(with_singular_values([3.0, 2.0, 1.0], 6, 4)).spectrum(max_dense=24)
    assert (found.method, found.resolution) == ("dense", 0)
    np.testing.assert_allclose(found.values, [3, 2, 1, 0], rtol=0, atol=20 * EPS)


def test_a_spectrum_above_the_budget_is_randomised() -> None:
    found = jacobian_of(with_singular_values([3.0, 2.0, 1.0], 6, 4)).spectrum(max_dense=23)
    assert found.method == "randomised"
    np.testing.assert_allclose(found.values, [3, 2, 1], rtol=0, atol=100 * EPS)


@pytest.mark.parametrize(
    ("values", "n", "p"),
    [
        (np.linspace(2, 1, 10), 10, 50),
        (np.linspace(2, 1, 10), 50, 10),
        (np.linspace(2, 1, 90), 100, 90),
        (np.linspace(2, 1, 100), 100, 100),
        (np.linspace(2, 1, 50), 120, 80),
        (np.linspace(2, 1, 3), 120, 80),
    ],
    ids=["wide", "tall", "full rank", "square", "rank 50", "rank 3"],
)
def test_all_singular_values_are_found_where_the_rank_ends_before_the_budget(
    values: np.ndarray, n: int, p: int
) -> None:
    found = randomised_svd(jacobian_of(with_singular_values(values, n, p)), EVERYTHING)
    # what was left outside is the rounding of one product with J, by vectors of length sqrt(p)
    assert found.resolution <= 1e-11
    np.testing.assert_allclose(found.values, values, rtol=0, atol=100 * EPS * values[0])


def test_a_graded_spectrum_is_found_down_to_the_resolution() -> None:
    values = 10 ** (-np.arange(80) / 4)
    found = randomised_svd(jacobian_of(with_singular_values(values, 120, 100)), EVERYTHING)
    assert found.resolution <= 2e-13
    assert found.values.min() > found.resolution * found.values[0]
    kept = values[: len(found.values)]
    assert len(kept) >= np.sum(values > 2 * found.resolution)
    # Q spans the range to the resolution
    np.testing.assert_allclose(found.values, kept, rtol=0, atol=found.resolution + 100 * EPS)


@pytest.mark.parametrize(("n", "p"), [(100, 300), (64, 2000), (120, 100), (2000, 64)])
@pytest.mark.parametrize("decades", [0.5, 5, 13])
def test_a_spectrum_in_single_precision_resolves_what_its_products_do(n: int, p: int, decades: float) -> None:
    """Against the dense spectrum of the same matrix in double precision."""
    matrix = with_singular_values(10 ** -np.linspace(0, decades, min(n, p)), n, p).float()
    found, exact = randomised_svd(jacobian_of(matrix), EVERYTHING), singular_values(matrix)
    kept, eps = len(found.values), torch.finfo(torch.float32).eps
    assert found.resolution > eps
    if n < p:  # where Q may span everything, what is left is rounding: some eps in each product with J
        assert found.resolution < 20 * eps * np.linalg.norm(exact) / exact[0]
    assert np.abs(found.values - exact[:kept]).max() <= found.resolution * exact[0]
    assert kept >= np.sum(exact > 2 * found.resolution * exact[0])


@every_problem
def test_the_rounding_of_derivatives_bounds_the_resolution_in_single_precision(
    pde: PDE, differentiator: Differentiator
) -> None:
    """Differences round by eps / h^n, which the products with their Jacobian show."""
    jacobian, _ = jacobian_and_batch(problem(pde, (12, 12), 60, torch.float32, differentiator))
    dense, found = jacobian.spectrum(EVERYTHING), randomised_svd(jacobian, EVERYTHING)
    kept = len(found.values)
    assert found.resolution > torch.finfo(torch.float32).eps
    assert np.abs(found.values - dense.values[:kept]).max() <= found.resolution * dense.values[0]
    assert kept >= np.sum(dense.values > 2 * found.resolution * dense.values[0]) > 3


@pytest.mark.parametrize("per_decade", [8, 20])
def test_a_small_budget_resolves_less_and_says_how_much(per_decade: int) -> None:
    values = 10 ** (-np.arange(80) / per_decade)
    found = randomised_svd(jacobian_of(with_singular_values(values, 120, 100)), max_dense=0)
    assert found.method == "randomised"
    # 32 directions cannot hold more than 32 values, so at least the 33rd is left outside
    assert found.resolution > values[32]
    assert len(found.values) < 32
    assert found.values.min() > found.resolution * found.values[0]
    assert len(found.values) >= np.sum(values > 2 * found.resolution)
    np.testing.assert_allclose(found.values, values[: len(found.values)], rtol=0, atol=found.resolution)


def test_a_larger_budget_resolves_more() -> None:
    jacobian = jacobian_of(with_singular_values(10 ** (-np.arange(80) / 10), 120, 100))
    resolutions = [randomised_svd(jacobian, most * 220).resolution for most in (32, 48, 64, 100)]
    assert resolutions == sorted(resolutions, reverse=True)
    assert resolutions[-1] < 1e-3 * resolutions[0]


@pytest.mark.parametrize("values", [np.ones(100), np.zeros(3)], ids=["flat beyond the budget", "zero"])
def test_a_randomised_spectrum_is_never_empty(values: np.ndarray) -> None:
    found = randomised_svd(jacobian_of(with_singular_values(values, 100, 100)), max_dense=0)
    assert len(found.values) >= 1


@every_problem
def test_a_network_has_the_same_spectrum_either_way(pde: PDE, differentiator: Differentiator) -> None:
    jacobian, _ = jacobian_and_batch(problem(pde, (12, 12), 60, differentiator=differentiator))
    dense, randomised = (jacobian.spectrum(max_dense=m) for m in (EVERYTHING, 0))
    assert (dense.method, randomised.method) == ("dense", "randomised")
    kept, resolution = len(randomised.values), randomised.resolution
    assert kept >= max(1, np.sum(dense.values > 2 * resolution * dense.values[0]))
    atol = (resolution + noise(differentiator)) * dense.values[0]
    np.testing.assert_allclose(randomised.values, dense.values[:kept], rtol=0, atol=atol)


def test_a_float32_network_is_resolved_to_float32() -> None:
    p = problem(Poisson1D(), dtype=torch.float32)
    jacobian, _ = jacobian_and_batch(p)
    found = jacobian.spectrum(max_dense=0)
    eps = torch.finfo(torch.float32).eps
    assert eps / 10 < found.resolution < 100 * eps
    dense = jacobian.spectrum(EVERYTHING).values
    np.testing.assert_allclose(
        found.values, dense[: len(found.values)], rtol=0, atol=(found.resolution + 100 * eps) * dense[0]
    )


def test_the_seed_decides_the_randomised_spectrum() -> None:
    jacobian = jacobian_of(with_singular_values(10 ** (-np.arange(80) / 8), 120, 100))
    one, again, other = (randomised_svd(jacobian, 0, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.values, again.values)
    assert one.resolution == again.resolution != other.resolution


# --- When spectra are taken


@pytest.mark.parametrize(
    ("when", "total", "steps"),
    [
        (["first"], 100, {0}),
        (["last"], 100, {100}),
        (["first", "last"], 0, {0}),
        (["log"], 100, {1, 3, 10, 30, 100}),
        (["log"], 250, {1, 3, 10, 30, 100}),
        (["log"], 1, {1}),
        (["first", 5, 500, "last"], 100, {0, 5, 100}),
        ([], 100, set()),
    ],
    ids=str,
)
def test_spectra_are_taken_at_the_named_steps(when: list[str | int], total: int, steps: set[int]) -> None:
    assert SpectrumProbe(when).steps(total) == steps


@pytest.mark.parametrize("word", ["often", -1, 2.5])
def test_an_unknown_moment_is_refused(word: Any) -> None:
    with pytest.raises(UsageError, match=rf"diagnostics\.when has '?{word}'?: expected first, log, last or steps"):
        SpectrumProbe(["first", word])


def test_the_probe_keeps_to_its_budget() -> None:
    p = problem(Poisson1D())
    batch = p.draw(np.random.default_rng(1))
    entries = len(p.residual_vector(p.model, batch)) * sum(q.numel() for q in p.model.parameters())
    found = {}
    for budget in (entries, entries - 1):
        record: Any = SimpleNamespace(
            spectra={}, tags={}, spectrum=lambda step, spectrum, budget=budget: found.update({budget: spectrum})
        )
        SpectrumProbe(max_dense=budget).measure(p, batch, 0, record)
    assert {budget: spectrum.method for budget, spectrum in found.items()} == {
        entries: "dense",
        entries - 1: "randomised",
    }


@pytest.mark.parametrize("weights", [{}, {"poisson": 3.0, "value": 0.5}])
def test_the_kernel_of_the_jacobian_is_that_of_the_loss(weights: dict[str, float]) -> None:
    """The gradient of the loss is 2 J^T r, and gradient flow changes the rows r by -2 J J^T r."""
    p = problem(Poisson1D(weights=weights))
    batch = p.draw(np.random.default_rng(0))
    parameters = list(p.model.parameters())
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(p.loss(batch), parameters)])
    for rows, same in (("loss", True), ("points", False)):
        jacobian = p.jacobian(batch, rows)
        r = p.residual_vector(p.model, batch, rows).detach()[:, 0]
        assert torch.allclose(2 * jacobian.dense().T @ r, gradient, rtol=1e-10, atol=1e-12) == same
        assert (abs(float(r.square().sum() / p.loss(batch).detach()) - 1) < 1e-12) == same
        torch.testing.assert_close(jacobian.dense(), jacobian.rows(torch.eye(len(r)).double()), rtol=1e-9, atol=1e-12)

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pde_train import linear_system, residuals
from pde_train.derivatives import Field, Jet
from pde_train.diagnostics.comparison import PeakMemory
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.finite_difference import FiniteDifference
from pde_train.differentiators.reverse import Reverse
from pde_train.errors import UsageError
from pde_train.geometry import Batch, Box, Points
from pde_train.models.mlp import MLP
from pde_train.models.random_features import RandomFeatures
from pde_train.pdes.base import PDE, on
from pde_train.pdes.biharmonic_1d import Biharmonic1D
from pde_train.pdes.biharmonic_2d import Biharmonic2D
from pde_train.pdes.convection_1d import Convection1D
from pde_train.pdes.euler_beam import EulerBeam
from pde_train.pdes.poisson_1d import Poisson1D
from pde_train.pdes.poisson_2d import Poisson2D
from pde_train.pdes.poisson_nd import PoissonND
from pde_train.samplers.grid import Grid
from pde_train.samplers.uniform import Uniform

EPS = torch.finfo(torch.float64).eps
PI = np.pi

every_pde = pytest.mark.parametrize(
    "pde",
    [
        Poisson1D(),
        Poisson2D(),
        Biharmonic1D(),
        Biharmonic1D(boundary="clamped"),
        Biharmonic2D(),
        Biharmonic2D(boundary="clamped"),
    ],
    ids=lambda pde: f"{type(pde).__name__}-{getattr(pde, 'boundary', '')}",
)
both = pytest.mark.parametrize("differentiator", [Reverse(), FiniteDifference(2, 1e-2)], ids=["reverse", "differences"])


def drawn(pde: PDE, interior: int = 25, boundary: int = 8) -> Batch:
    return Uniform(interior, boundary).draw(pde.domain, np.random.default_rng(0))


def features(pde: PDE, count: int = 12, activation: str = "tanh") -> RandomFeatures:
    return RandomFeatures(pde.domain.dimension, count, activation, 2.0, seed=0).requires_grad_(False)


def zero(x: Tensor) -> Tensor:
    return 0 * x[:, :1]


def exact(pde: PDE) -> Field:
    """The exact solution as a field."""
    return pde.exact_at


def close(found: Tensor, expected: Tensor, rounds: float = 1e3) -> None:
    """Equal up to so many roundings of the largest number."""
    torch.testing.assert_close(found, expected, rtol=0, atol=rounds * EPS * float(expected.abs().max()))


@dataclass(frozen=True)
class Cubic(PDE):
    """-u'' + u^3 = forcing sin x, which is not linear in u."""

    forcing: float = 1.0
    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x",)
    domain = Box((-1.0,), (1.0,))

    def exact(self, d: Jet) -> Tensor:
        return torch.zeros_like(d.x)

    @on("boundary", needs="u")
    def value(self, d: Jet) -> Tensor:
        return d.u

    @on("interior", needs="u u_xx")
    def cubic(self, d: Jet) -> Tensor:
        return -d.u_xx + d.u**3 - self.forcing * torch.sin(d.x)


@dataclass(frozen=True)
class Drift(PDE):
    """x u' + 2 u = x^2 with u(-1) + n u'(-1) given: coefficients that depend on the point, and a normal."""

    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x",)
    domain = Box((-1.0,), (1.0,))

    def exact(self, d: Jet) -> Tensor:
        return d.x**2 / 4

    @on("interior", needs="u u_x")
    def drift(self, d: Jet) -> Tensor:
        return d.x * d.u_x + 2 * d.u - d.x**2

    @on("boundary", needs="u u_x")
    def robin(self, d: Jet) -> Tensor:
        return d.u + d.n_x * d.u_x - 0.75


# --- The linear system


def poisson_by_hand(model: RandomFeatures, batch: Batch, k: float) -> tuple[Tensor, Tensor]:
    """A and b of -u'' = k^2 sin k x with u = sin k x at both ends, for tanh features in closed form."""
    w, b = model.weights.numpy()[:, 0], model.biases.numpy()
    inside, ends = batch["interior"].x.numpy(), batch["boundary"].x.numpy()
    t = np.tanh(inside * w + b)
    a = np.concatenate([-(w**2) * (-2 * t * (1 - t**2)), np.tanh(ends * w + b)])
    return torch.from_numpy(a), torch.from_numpy(np.concatenate([k**2 * np.sin(k * inside), np.sin(k * ends)]))


@pytest.mark.parametrize("frequency", [1.0, 2.5])
def test_the_system_of_poissons_equation_is_the_one_by_hand(frequency: float) -> None:
    pde = Poisson1D(frequency=frequency)
    model, batch = features(pde), drawn(pde)
    expected = poisson_by_hand(model, batch, frequency * PI)
    found = linear_system.assemble(pde, model.features, Reverse(), batch)
    assert found[0].shape == (27, 12)
    assert found[1].shape == (27, 1)
    for f, e in zip(found, expected, strict=True):
        close(f, e, rounds=100)


def test_the_system_of_a_beam_is_the_one_by_hand() -> None:
    pde = Biharmonic1D(boundary="clamped", weights={"slope": 0.5})
    model, batch = features(pde, activation="sin"), drawn(pde)
    w, b = model.weights.T, model.biases
    inside, ends = batch["interior"].x, batch["boundary"].x
    a = torch.cat([w**4 * torch.sin(inside * w + b), torch.sin(ends * w + b), 0.5 * w * torch.cos(ends * w + b)])
    f = torch.cat([PI**4 * torch.sin(PI * inside), torch.sin(PI * ends), 0.5 * PI * torch.cos(PI * ends)])
    found = linear_system.assemble(pde, model.features, Reverse(), batch)
    close(found[0], a, rounds=100)
    close(found[1], f, rounds=100)


@both
@every_pde
def test_the_system_is_the_residual_of_the_bank_less_that_of_zero(pde: PDE, differentiator: Differentiator) -> None:
    model, batch = features(pde), drawn(pde)
    a, b = linear_system.assemble(pde, model.features, differentiator, batch)
    of_features = torch.cat(list(residuals.evaluate(pde, model.features, differentiator, batch).values()))
    of_zero = residuals.stacked(residuals.evaluate(pde, zero, differentiator, batch))
    # the forcing, up to 8 pi^4 here, is added and taken away again: its rounding is all that differs
    size = float(of_features.abs().max() + of_zero.abs().max())
    torch.testing.assert_close(a, of_features - of_zero, rtol=0, atol=4 * EPS * size)
    torch.testing.assert_close(b, -of_zero, rtol=0, atol=4 * EPS * size)


@both
@every_pde
def test_the_residual_is_the_system_at_every_coefficient(pde: PDE, differentiator: Differentiator) -> None:
    model, batch = features(pde), drawn(pde)
    a, b = linear_system.assemble(pde, model.features, differentiator, batch)
    with torch.no_grad():
        model.coefficients.copy_(torch.linspace(-1, 1, 12, dtype=torch.float64).unsqueeze(1))
    found = residuals.stacked(residuals.evaluate(pde, model, differentiator, batch))
    # differences divide rounding by h^2 or h^4, so their features and their sum agree no better than that
    h: Any = differentiator.step if isinstance(differentiator, FiniteDifference) else 1
    atol = 1e3 * EPS * max(float(a.abs().max()), float(b.abs().max()), h**-pde.order)
    torch.testing.assert_close(found, a @ model.coefficients - b, rtol=0, atol=atol)


def test_coefficients_that_depend_on_the_point_and_normals_enter_the_system() -> None:
    pde = Drift()
    batch = drawn(pde)
    a, b = linear_system.assemble(pde, lambda x: torch.cat([x, x**2], dim=1), Reverse(), batch)
    x, ends, n = batch["interior"].x, batch["boundary"].x, batch["boundary"].normals
    assert n is not None
    expected = torch.cat([torch.cat([3 * x, 4 * x**2], 1), torch.cat([ends + n, ends**2 + 2 * n * ends], 1)])
    close(a, expected, rounds=10)
    close(b, torch.cat([x**2, torch.full_like(ends, 0.75)]), rounds=10)
    # u = x^2 / 4 solves it
    close(a @ torch.tensor([[0.0], [0.25]], dtype=torch.float64), b, rounds=10)


def test_the_forcing_never_enters_the_matrix() -> None:
    model, batch = features(Poisson1D()), drawn(Poisson1D())
    pdes = (Poisson1D(frequency=1.0), Poisson1D(frequency=1000.0))
    weak, strong = (linear_system.assemble(pde, model.features, Reverse(), batch)[0] for pde in pdes)
    torch.testing.assert_close(weak, strong, rtol=0, atol=0)


def test_what_wraps_the_blocks_of_points_gets_each_of_them_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pde = Poisson1D()
    model, batch = features(pde), drawn(pde)
    seen: list[Batch] = []
    monkeypatch.setattr(residuals, "BLOCK", 40)

    def wrap(blocks: Iterable[Batch]) -> Iterator[Batch]:
        for block in blocks:
            seen.append(block)
            yield block

    matrix, _ = linear_system.assemble(pde, model.features, Reverse(), batch, wrap)
    assert len(seen) > len(batch)
    assert sum(len(points.x) for block in seen for points in block.values()) == len(matrix)


@both
@every_pde
@pytest.mark.parametrize("block", [1, 40, 120])
def test_blocks_change_no_row(
    pde: PDE, differentiator: Differentiator, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = features(pde), drawn(pde)
    whole = linear_system.assemble(pde, model.features, differentiator, batch)
    relative = residuals.relative_residual(pde, exact(pde), differentiator, batch)
    monkeypatch.setattr(residuals, "BLOCK", block)
    in_blocks = linear_system.assemble(pde, model.features, differentiator, batch)
    # matrix products round differently by shape; differences divide that by h^2 or h^4
    h: Any = differentiator.step if isinstance(differentiator, FiniteDifference) else 1
    for found, expected in zip(in_blocks, whole, strict=True):
        atol = 1e2 * EPS * max(float(expected.abs().max()), h**-pde.order)
        torch.testing.assert_close(found, expected, rtol=0, atol=atol)
    assert residuals.relative_residual(pde, exact(pde), differentiator, batch) == pytest.approx(
        relative, rel=1e-3, abs=1e3 * EPS
    )


def test_the_residual_of_many_points_takes_the_memory_of_one_block() -> None:
    """Nested reverse mode of the fourth order: 2 GB for ten thousand points of a network of three layers of 64."""
    pde, model, peaks = Biharmonic2D(), MLP(2, [8, 8], "tanh", 0), []
    for count in (residuals.BLOCK_POINTS, 4 * residuals.BLOCK_POINTS):
        batch = Uniform(count, 8, seed=0).draw(pde.domain, np.random.default_rng(0))
        with torch.no_grad(), PeakMemory() as memory:
            residuals.relative_residual(pde, model, Reverse(), batch)
        peaks.append(memory.peak)
    assert peaks[0] > 1e6
    assert peaks[1] < 1.2 * peaks[0]


def test_blocks_hold_at_most_so_many_values(monkeypatch: pytest.MonkeyPatch) -> None:
    pde, seen = Poisson1D(), []
    model = features(pde)

    def bank(x: Tensor) -> Tensor:
        seen.append(len(x))
        return model.features(x)

    monkeypatch.setattr(residuals, "BLOCK", 60)
    linear_system.assemble(pde, bank, Reverse(), drawn(pde))
    assert max(seen) == 60 // 12
    assert sum(seen) >= 27


@both
def test_weights_scale_the_rows_of_their_equation(differentiator: Differentiator) -> None:
    batch = drawn(Biharmonic1D())
    model = features(Biharmonic1D())
    plain = linear_system.assemble(Biharmonic1D(), model.features, differentiator, batch)
    # powers of 2 scale without rounding
    weighted = Biharmonic1D(weights={"value": 8.0, "moment": 0.25})
    scale = torch.tensor([1.0] * 25 + [8.0] * 2 + [0.25] * 2, dtype=torch.float64).unsqueeze(1)
    for found, expected in zip(
        linear_system.assemble(weighted, model.features, differentiator, batch), plain, strict=True
    ):
        torch.testing.assert_close(found, scale * expected, rtol=0, atol=0)
    by_name = residuals.evaluate(weighted, model.features, differentiator, batch)
    unweighted = residuals.evaluate(Biharmonic1D(), model.features, differentiator, batch)
    for name, weight in {"biharmonic": 1.0, "value": 8.0, "moment": 0.25}.items():
        torch.testing.assert_close(by_name[name], weight * unweighted[name], rtol=0, atol=0)


def test_rows_come_equation_by_equation_and_point_by_point() -> None:
    pde = Biharmonic1D(boundary="clamped")
    batch = drawn(pde)
    found = residuals.evaluate(pde, features(pde), Reverse(), batch)
    assert list(found) == ["biharmonic", "value", "slope"]
    assert [len(r) for r in found.values()] == [25, 2, 2]
    assert residuals.stacked(found).shape == (29, 1)
    torch.testing.assert_close(residuals.stacked(found)[25:27], found["value"], rtol=0, atol=0)


def test_rows_do_not_follow_the_order_of_the_regions() -> None:
    pde = Poisson1D()
    model, batch = features(pde), drawn(pde)
    turned = dict(reversed(list(batch.items())))
    straight, swapped = (linear_system.assemble(pde, model.features, Reverse(), b) for b in (batch, turned))
    torch.testing.assert_close(swapped, straight, rtol=0, atol=0)
    assert list(residuals.evaluate(pde, model, Reverse(), turned)) == list(
        residuals.evaluate(pde, model, Reverse(), batch)
    )


@pytest.mark.parametrize("forcing", [0.0, 1.0, 1e4], ids=["unforced", "weakly forced", "strongly forced"])
@pytest.mark.parametrize("reach", [2.0, 100.0])
def test_a_nonlinear_equation_has_no_system(forcing: float, reach: float) -> None:
    pde = Cubic(forcing=forcing)
    model = RandomFeatures(1, 100, "tanh", reach, seed=0)
    with pytest.raises(
        UsageError, match=r"least_squares solves linear equations, and 'cubic' .* is not linear in u: choose"
    ):
        linear_system.assemble(pde, model.features, Reverse(), drawn(pde))


def test_a_nonlinear_equation_still_has_residuals() -> None:
    pde, batch = Cubic(), drawn(Cubic())
    found = residuals.evaluate(pde, lambda x: x**2, Reverse(), batch)
    x = batch["interior"].x
    close(found["cubic"], -2 + x**6 - torch.sin(x), rounds=10)


# --- Regions beside the boundary


@dataclass(frozen=True)
class Wheel(PDE):
    """A third-order equation with u, u' and u'' periodic, so that across columns of every name are needed."""

    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x",)
    domain = Box((-1.0,), (1.0,))

    def exact(self, d: Jet) -> Tensor:
        return torch.sin(PI * d.x)

    @on("interior", needs="u u_xxx")
    def wheel(self, d: Jet) -> Tensor:
        return d.u_xxx + PI**3 * torch.cos(PI * d.x) + d.u - self.exact(d)

    @on("periodic", needs="u u_x")
    def value(self, d: Jet) -> Tensor:
        return d.u - d.across_u + (d.x + 1) + (d.across_x - 1)

    @on("periodic", needs="lap_u u_x")
    def bend(self, d: Jet) -> Tensor:
        return d.n_x * (d.lap_u - d.across_lap_u) + 3 * (d.u_x - d.across_u_x)


def test_a_periodic_region_compares_opposite_points() -> None:
    pde = Wheel()
    batch = Uniform(25, 8).draw(pde.domain, np.random.default_rng(0), pde.faces)
    assert batch["periodic"].x.tolist() == [[-1.0]]
    a, b = linear_system.assemble(pde, lambda x: torch.cat([x, x**2, x**3], dim=1), Reverse(), batch)
    # u(-1) - u(1), and -(u''(-1) - u''(1)) + 3 (u'(-1) - u'(1)), of x, x^2, x^3
    close(a[-2:], torch.tensor([[-2.0, 0.0, -2.0], [0.0, -12.0, 12.0]], dtype=torch.float64), rounds=10)
    close(b[-2:], torch.zeros(2, 1, dtype=torch.float64), rounds=10)
    assert residuals.relative_residual(pde, exact(pde), Reverse(), batch) <= 100 * EPS


every_region = pytest.mark.parametrize("pde", [EulerBeam(), Convection1D(beta=2.0), PoissonND()], ids=repr)


@both
@every_region
def test_every_region_enters_the_system(pde: PDE, differentiator: Differentiator) -> None:
    model = features(pde, activation="sin")
    batch = Uniform(25, 8, initial=7).draw(pde.domain, np.random.default_rng(0), pde.faces)
    a, b = linear_system.assemble(pde, model.features, differentiator, batch)
    rows = {e.name: len(batch[e.region].x) for e in pde.equations()}
    assert a.shape == (sum(rows.values()), 12)
    assert {k: len(v) for k, v in residuals.evaluate(pde, model, differentiator, batch).items()} == rows
    with torch.no_grad():
        model.coefficients.copy_(torch.linspace(-1, 1, 12, dtype=torch.float64).unsqueeze(1))
    found = residuals.stacked(residuals.evaluate(pde, model, differentiator, batch))
    # rounding is divided by h^n, as in the test of the other equations above
    h: Any = differentiator.step if isinstance(differentiator, FiniteDifference) else 1
    atol = 1e3 * EPS * max(float(a.abs().max()), float(b.abs().max()), h**-pde.order)
    torch.testing.assert_close(found, a @ model.coefficients - b, rtol=0, atol=atol)


@every_region
def test_the_exact_solution_leaves_no_residual_on_any_region(pde: PDE) -> None:
    batch = Uniform(25, 8, initial=7).draw(pde.domain, np.random.default_rng(0), pde.faces)
    assert residuals.relative_residual(pde, exact(pde), Reverse(), batch) <= 20 * EPS


def test_blocks_keep_opposite_points_together(monkeypatch: pytest.MonkeyPatch) -> None:
    pde = Convection1D()
    model = features(pde, activation="sin")
    batch = Uniform(25, 8, initial=7).draw(pde.domain, np.random.default_rng(0), pde.faces)
    whole = linear_system.assemble(pde, model.features, Reverse(), batch)
    monkeypatch.setattr(residuals, "BLOCK", 40)
    for found, expected in zip(linear_system.assemble(pde, model.features, Reverse(), batch), whole, strict=True):
        close(found, expected, rounds=100)


# --- Loss and residuals


def test_the_loss_is_the_sum_of_mean_squares() -> None:
    made = {"a": torch.tensor([[1.0], [3.0]]), "b": torch.tensor([[2.0]]), "c": torch.tensor([[0.0], [0.0], [3.0]])}
    assert residuals.loss(made) == 5 + 4 + 3


def test_the_loss_can_be_differentiated_by_the_parameters() -> None:
    pde = Poisson1D()
    model, batch = RandomFeatures(1, 12, "tanh", 2.0, seed=0), drawn(pde)
    a, b = linear_system.assemble(pde, model.features, Reverse(), batch)
    with torch.no_grad():
        model.coefficients.fill_(0.3)
    residuals.loss(residuals.evaluate(pde, model, Reverse(), batch)).backward()
    # sum over equations of the mean of (A c - b)^2: its gradient is 2 A^T (A c - b) / n_e
    r = (a @ model.coefficients - b).detach() / torch.tensor([25.0] * 25 + [2.0] * 2, dtype=torch.float64).unsqueeze(1)
    assert model.coefficients.grad is not None
    close(model.coefficients.grad, 2 * a.T @ r)


@every_pde
def test_the_exact_solution_leaves_no_residual(pde: PDE) -> None:
    batch = Grid(25, 4 * pde.domain.dimension).draw(pde.domain, np.random.default_rng(0))
    # derivatives of order n of sin(k x) are k^n times a sine, rounded a few times; relative to the forcing k^n
    assert residuals.relative_residual(pde, exact(pde), Reverse(), batch) <= 10 * EPS


@every_pde
def test_no_solution_leaves_the_whole_residual(pde: PDE) -> None:
    assert residuals.relative_residual(pde, zero, Reverse(), drawn(pde)) == 1


def test_differences_leave_the_truncation_of_the_exact_solution() -> None:
    pde = Poisson1D()
    batch = drawn(pde)
    h = 1e-2
    found = residuals.relative_residual(pde, exact(pde), FiniteDifference(2, h), batch)
    # the leading term of the error of u'' is h^2 / 12 u'''' = k^2 h^2 / 12 u''; the ends have neither
    assert found == pytest.approx(PI**2 * h**2 / 12, rel=1e-3)


def test_a_residual_without_forcing_is_not_divided_by_zero() -> None:
    pde = Cubic(forcing=0.0)
    assert residuals.relative_residual(pde, zero, Reverse(), drawn(pde)) == 0
    x = torch.ones(1, 1, dtype=torch.float64)
    batch = {"interior": Points(x), "boundary": Points(x, x)}
    # u = 2 x at x = 1: -u'' + u^3 = 8 and u = 2
    assert residuals.relative_residual(pde, lambda x: 2 * x, Reverse(), batch) == pytest.approx(68**0.5)


def test_a_jet_holds_normals_on_the_boundary_only() -> None:
    pde = Poisson2D()
    batch, equations = drawn(pde), pde.equations()
    inside = residuals.jet_at(pde, features(pde), Reverse(), batch["interior"], equations[0].request)
    outside = residuals.jet_at(pde, features(pde), Reverse(), batch["boundary"], equations[1].request)
    assert set(inside.columns) == {"x", "y", "lap_u"}
    assert set(outside.columns) == {"x", "y", "u", "n_x", "n_y"}
    torch.testing.assert_close(torch.cat([outside.n_x, outside.n_y], 1), batch["boundary"].normals, rtol=0, atol=0)


def test_a_region_is_differentiated_once_for_all_its_equations() -> None:
    pde, called = Biharmonic1D(), []

    def field(x: Tensor) -> Tensor:
        called.append(len(x))
        return torch.sin(x)

    residuals.evaluate(pde, field, Reverse(), drawn(pde))
    assert called == [25, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_system_keeps_the_precision_of_the_points(dtype: torch.dtype) -> None:
    pde = Poisson1D()
    batch = {region: points.to(dtype=dtype, device="cpu") for region, points in drawn(pde).items()}
    a, b = linear_system.assemble(pde, features(pde).to(dtype).features, Reverse(), batch)
    assert (a.dtype, b.dtype) == (dtype, dtype)

"""Initial values from a file: a smooth function through them that differentiates."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures import Compose
from scipy.interpolate import CubicSpline, RBFInterpolator
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.finite_difference import FiniteDifference
from pde_train.differentiators.forward import Forward
from pde_train.differentiators.reverse import Reverse
from pde_train.differentiators.taylor import Taylor
from pde_train.errors import UsageError
from pde_train.experiment import build
from pde_train.pdes.base import fulfils, on
from pde_train.pdes.heat_1d import Heat1D
from pde_train.pdes.interpolation import Interpolation
from pde_train.runs.run import run

pytestmark = pytest.mark.usefixtures("without_figures")


def file_of(folder: Path, names: str, *columns: np.ndarray) -> str:
    path = folder / "values.csv"
    np.savetxt(path, np.stack(columns, axis=1), delimiter=",", header=names, comments="", fmt="%.17g")
    return str(path)


@pytest.mark.parametrize("differentiator", [Reverse(), Forward(), Taylor(), FiniteDifference(8, 1e-3)], ids=str)
def test_in_one_dimension_it_is_the_natural_cubic_spline(differentiator: Differentiator, tmp_path: Path) -> None:
    x = np.sort(np.random.default_rng(0).uniform(-1, 1, 20))
    f = Interpolation(file_of(tmp_path, "x,u", x, np.sin(3 * x)))
    spline = CubicSpline(x, np.sin(3 * x), bc_type="natural")
    between = (x[1:] + x[:-1]) / 2
    between = between[np.diff(x) > 0.02]  # a stencil of finite differences meets no third derivative that jumps
    found = differentiator.partials(f, torch.from_numpy(between)[:, None], frozenset({(), (0,), (0, 0)}))
    for axes, values in found.items():
        expected = spline(between, len(axes))
        np.testing.assert_allclose(values[:, 0].numpy(), expected, rtol=0, atol=1e-8 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("differentiator", [Reverse(), Taylor()], ids=str)
def test_values_with_noise_in_single_precision(differentiator: Differentiator, tmp_path: Path) -> None:
    """The coefficients are near 1e7, and what is left of their sum is near 1."""
    x = np.linspace(0, 1, 500)
    f = Interpolation(file_of(tmp_path, "x,u", x, np.sin(x) + 0.01 * np.random.default_rng(0).standard_normal(500)))
    at = torch.linspace(0, 1, 97)[:, None]
    found = differentiator.partials(f, at, frozenset({(), (0,)}))
    exact = differentiator.partials(f, at.double(), frozenset({(), (0,)}))
    for axes, values in found.items():
        assert values.dtype == torch.float32
        assert (values - exact[axes]).abs().max() < 1e-6 * exact[axes].abs().max()


def test_scattered_points_in_the_plane(tmp_path: Path) -> None:
    x, y = np.random.default_rng(1).uniform(-1, 1, (2, 80))
    u = np.exp(x) * np.sin(2 * y)
    f = Interpolation(file_of(tmp_path, "east,north,u", x, y, u), ("east", "north"))
    a, b = np.random.default_rng(2).uniform(-0.8, 0.8, (2, 30))
    found = f(torch.from_numpy(a)[:, None], torch.from_numpy(b)[:, None])[:, 0].numpy()
    by_scipy = RBFInterpolator(np.stack([x, y], axis=1), u, kernel="cubic", degree=1)(np.stack([a, b], axis=1))
    np.testing.assert_allclose(found, by_scipy, rtol=0, atol=1e-10)
    at_points = f(torch.from_numpy(x)[:, None], torch.from_numpy(y)[:, None])[:, 0].numpy()
    np.testing.assert_allclose(at_points, u, rtol=0, atol=1e-11)
    at = torch.tensor([[x[0], y[0]]])
    curvature = Reverse().partials(lambda p: f(p[:, :1], p[:, 1:]), at, frozenset({(0, 0), (0, 1)}))
    assert all(math.isfinite(float(value)) for value in curvature.values())


def test_a_linear_function_is_met_exactly_and_continued(tmp_path: Path) -> None:
    x, y = np.random.default_rng(1).uniform(-1, 1, (2, 12))
    f = Interpolation(file_of(tmp_path, "x,y,u", x, y, 3 - 2 * x + y), ("x", "y"))
    far = torch.tensor([[4.0]], dtype=torch.float64)
    assert float(f(far, -far)) == pytest.approx(3 - 8 - 4, abs=1e-10)


@dataclass(frozen=True)
class Measured(Heat1D):
    """Heat that begins with values from a file."""

    path: str = "start.csv"
    weights: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def given(self) -> Interpolation:
        return Interpolation(self.path)

    @on("initial", needs="u")
    def start(self, d: Jet) -> Tensor:
        return d.u - self.given(d.x)

    @fulfils("start", "walls")
    def ansatz(self, d: Jet, raw: Tensor) -> Tensor:
        return self.given(d.x) + d.t * d.x * (1 - d.x) * raw


@pytest.mark.parametrize(("conditions", "reached"), [("soft", 5e-3), ("exact", 1e-3)])
def test_heat_from_values_of_a_file(compose: Compose, tmp_path: Path, conditions: str, reached: float) -> None:
    x = np.linspace(0, 1, 41)
    path = file_of(tmp_path, "x,u", x, np.sin(np.pi * x) * (x < 1))
    own = ["trusted_modules=[test_interpolation]", "pde=heat_1d", "pde._target_=test_interpolation.Measured"]
    words = ["model=two_layer", "model.width=16", "sampler=uniform", "sampler.interior=150", "diagnostics=none"]
    words += ["method=gauss_newton", "method.steps=150", "method.compile=never", f"pde.conditions={conditions}"]
    cfg = compose(*own, f"++pde.path={path}", *words)
    assert run(build(cfg), tmp_path / "run").last()["error_l2"] < reached


class Unknown(Measured):
    """The same without a solution to compare with."""

    exact = None  # type: ignore[assignment]  # it is taken away


def test_a_pde_may_drop_the_exact_solution_that_it_inherits(tmp_path: Path) -> None:
    path = file_of(tmp_path, "x,u", np.linspace(0, 1, 5), np.zeros(5))
    assert Measured(path=path).has_exact
    assert not Unknown(path=path).has_exact


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ((), r"the file of initial values=.*absent\.csv cannot be read \(FileNotFoundError"),
        (([0.0, 1.0], [0.0, math.nan]), "has 1 rows with an empty, nan or infinite x, u, first row 2: expected finite"),
        (([0.0, 0.0, 1.0], [1.0, 1.0, 2.0]), "has the same point twice, or all on one line: expected points that"),
        ((np.arange(4001.0), np.arange(4001.0)), "has 4001 rows: expected at most 4000, choose some of them"),
    ],
)
def test_values_through_which_no_function_goes_are_refused(
    columns: tuple[list[float], ...], sentence: str, tmp_path: Path
) -> None:
    path = file_of(tmp_path, "x,u", *map(np.array, columns)) if columns else str(tmp_path / "absent.csv")
    with pytest.raises(UsageError, match=sentence):
        Interpolation(path)


@pytest.mark.parametrize("extent", [1.0, 1e-6])
def test_a_function_that_rounding_keeps_from_the_values_is_refused(extent: float, tmp_path: Path) -> None:
    """Points on a strip that is a millionth as high as long lie on a line but for the last digits of a distance."""
    x, y = np.random.default_rng(0).random((2, 300))
    path = file_of(tmp_path, "x,y,u", x, extent * y, np.sin(3 * x + 3 * y))
    if extent == 1:
        f = Interpolation(path, ("x", "y"))
        found = f(torch.from_numpy(x)[:, None], torch.from_numpy(y)[:, None])[:, 0].numpy()
        np.testing.assert_allclose(found, np.sin(3 * x + 3 * y), rtol=0, atol=1e-11)
        return
    with pytest.raises(UsageError, match=r"misses them by \d\.\de-0\d of the largest one, .*: expected coordinates of"):
        Interpolation(path, ("x", "y"))


def test_two_points_closer_than_rounding_are_refused(tmp_path: Path) -> None:
    path = file_of(tmp_path, "x,u", np.array([0.0, 1e-14, 1.0]), np.array([0.0, 1.0, 2.0]))
    with pytest.raises(UsageError, match=r"misses them by .* of the largest one, as points lie close together"):
        Interpolation(path)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = file_of(tmp_path, "x,w", np.arange(3.0), np.arange(3.0))
    with pytest.raises(UsageError, match="lacks u, and has x, w: expected a column for each of x, u"):
        Interpolation(path)

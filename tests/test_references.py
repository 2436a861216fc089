"""References: Fourier series with exponential time differencing, their measured error, and runs judged by them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures import Compose
from torch import Tensor

from pde_train.errors import RunError, UsageError
from pde_train.experiment import build
from pde_train.pdes.allen_cahn_periodic_1d import AllenCahnPeriodic1D
from pde_train.pdes.schroedinger_1d import Schroedinger1D
from pde_train.references import base
from pde_train.references.base import certified
from pde_train.references.fourier import Semilinear
from pde_train.runs import figures
from pde_train.runs.run import run_config

PERIOD = 2 * math.pi


def test_a_linear_equation_is_solved_exactly() -> None:
    """u_t = u_xx / 10 - u_xxx: every mode decays and travels by itself."""
    equation = Semilinear(
        0.0,
        PERIOD,
        lambda k: -0.1 * k**2 + 1j * k**3,
        lambda k: 0 * k,
        lambda u: u,
        lambda x: np.cos(3 * x) + np.sin(x),
    )
    x, t = points = np.random.default_rng(0).uniform((0, 0), (PERIOD, 2), (50, 2)).T
    t[:] = np.round(t)
    expected = np.exp(-0.9 * t) * np.cos(3 * x + 27 * t) + np.exp(-0.1 * t) * np.sin(x + t)
    np.testing.assert_allclose(equation.at(points.T, 32, 1.0), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("real", [True, False])
def test_several_coordinates_and_unknowns(real: bool) -> None:
    """Heat in a cube, and the transport of another unknown along its first coordinate."""
    equation = Semilinear(
        1.0,
        PERIOD,
        lambda k, m, n: np.stack([-0.1 * (k**2 + m**2 + n**2), -2j * k]),
        lambda k, m, n: np.zeros((2, *k.shape)),
        lambda u: u,
        lambda x, y, z: np.stack([np.cos(2 * x + y - z) + np.sin(3 * y), np.cos(x) * np.sin(y + 2 * z)]),
        real=real,
    )
    points = np.random.default_rng(0).uniform(0, (PERIOD, PERIOD, PERIOD, 2), (50, 4))
    x, y, z, t = points.T
    t[:] = np.round(t)
    heat = np.exp(-0.6 * t) * np.cos(2 * x + y - z) + np.exp(-0.9 * t) * np.sin(3 * y)
    transport = np.cos(x - 2 * t) * np.sin(y + 2 * z)
    np.testing.assert_allclose(equation.at(points, 8, 1.0), np.stack([heat, transport], 1), rtol=0, atol=1e-12)


def soliton(x: np.ndarray, t: np.ndarray) -> np.ndarray:
    """A soliton of i h_t + h_xx / 2 + |h|^2 h = 0 on the line, at speed 1; at 20 it is 4e-9."""
    return np.exp(1j * x) / np.cosh(x - t)


NLS = Semilinear(
    -20.0,
    40.0,
    lambda k: -0.5j * k**2,
    lambda k: 1j * np.ones_like(k),
    lambda h: np.abs(h) ** 2 * h,
    lambda x: soliton(x, np.zeros_like(x)),
)


def test_time_steps_are_of_fourth_order() -> None:
    x = np.linspace(-5, 5, 21)
    t = np.full(21, 1.0)
    errors = [np.abs(NLS.at(np.stack([x, t], axis=1), 256, step) - soliton(x, t)).max() for step in (0.08, 0.04, 0.02)]
    assert 3.7 < math.log2(errors[0] / errors[1]) < 4.4
    assert 3.7 < math.log2(errors[1] / errors[2]) < 4.4
    assert errors[2] < 1e-6


def test_times_may_come_in_any_order_and_lie_anywhere() -> None:
    """Between time steps, too, the order is the fourth."""
    points = np.random.default_rng(0).uniform((-5, 0), (5, 1), (40, 2))
    errors = [np.abs(NLS.at(points, 256, step) - soliton(*points.T)).max() for step in (0.08, 0.04, 0.02)]
    assert 3.5 < math.log2(errors[0] / errors[1]) < 4.5
    assert 3.5 < math.log2(errors[1] / errors[2]) < 4.5
    assert errors[2] < 1e-7


def test_times_before_the_initial_values_have_no_reference() -> None:
    with pytest.raises(UsageError, match=r"a reference at the time -0\.5 lies before its initial values at 0"):
        NLS.at(np.array([[0.0, -0.5], [0.0, 1.0]]), 64, 0.1)


def test_the_conserved_quantities_of_the_benchmark_hold() -> None:
    """The integral of |h|^2 is that of the start at all times, which no error of phase or amplitude leaves."""
    equation = Schroedinger1D()
    x = np.linspace(-5, 5, 401)[:-1]
    for time in (0.7, math.pi / 2):
        values = equation.reference(np.stack([x, np.full_like(x, time)], axis=1)).values
        assert (values**2).sum() * 10 / 400 == pytest.approx(8 * math.tanh(5), rel=1e-4)
        np.testing.assert_allclose(values[1:], values[1:][::-1], rtol=0, atol=1e-6)  # even in x


def test_the_benchmark_is_near_the_two_soliton_of_the_line() -> None:
    t = np.linspace(0, math.pi / 2, 21)
    h = 4 * (1 + 3 * np.exp(4j * t)) * np.exp(0.5j * t) / (5 + 3 * np.cos(4 * t))
    found = Schroedinger1D().reference(np.stack([0 * t, t], axis=1))
    assert found.error < 1e-4
    assert np.abs(found.values[:, 0] + 1j * found.values[:, 1] - h).max() < 0.011  # P13: 1.05e-2 at the end


def test_the_error_is_the_difference_of_two_resolutions_and_both_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PDE_TRAIN_CACHE", str(tmp_path))
    x, calls = np.linspace(0, 1, 5)[:, None], []

    def solve(resolution: int) -> np.ndarray:
        calls.append(resolution)
        return np.ones((5, 1)) * (1 + (1 - resolution) * 3e-4)

    for _ in range(2):
        found = certified(solve, "flat", x, (0, 1))
        assert found.error == pytest.approx(3e-4)
        assert (found.values == 1).all()
    assert calls == [0, 1]
    certified(solve, "other", x, (0, 1))
    certified(solve, "flat", x + 1, (0, 1))
    assert len(calls) == 6
    (file, *_) = (tmp_path / "references").iterdir()
    file.write_bytes(b"damaged")
    for name, points in (("flat", x), ("other", x), ("flat", x + 1)):
        assert certified(solve, name, points, (0, 1)).error == pytest.approx(3e-4)
    assert len(calls) == 8
    assert certified(solve, "flat", x, (-1, 1)).error == pytest.approx(6e-4)  # other resolutions, another reference


class Another(AllenCahnPeriodic1D):
    """The same equation from other values."""

    def initial(self, x: Tensor) -> Tensor:
        return torch.full_like(x, 0.5)


def test_an_equation_from_other_initial_values_has_a_reference_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a constant u' = 5 (u - u^3) remains: u^2 / (1 - u^2) grows like e^(10 t)."""
    monkeypatch.setenv("PDE_TRAIN_CACHE", str(tmp_path))
    monkeypatch.setattr("pde_train.pdes.allen_cahn_periodic_1d.RESOLUTIONS", ((64, 0.02), (128, 0.01)))
    monkeypatch.setattr(base, "WORST", 1.0)
    x = np.array([[0.1, 0.1], [-0.7, 0.5], [0.3, 0.0]])
    AllenCahnPeriodic1D().reference(x)
    odds = np.exp(10 * x[:, 1]) / 3
    for _ in range(2):  # computed, and read
        found = Another().reference(x).values[:, 0]
        np.testing.assert_allclose(found, np.sqrt(odds / (1 + odds)), rtol=1e-6)
    assert len(list((tmp_path / "references").iterdir())) == 2


def test_a_reference_that_does_not_converge_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PDE_TRAIN_CACHE", str(tmp_path))
    x = np.zeros((3, 1))
    for values in (lambda r: np.ones((3, 1)) + r, lambda r: np.full((3, 1), np.nan)):
        with pytest.raises(RunError, match=r"the reference of wild differs by .* between two resolutions: expected at"):
            certified(values, "wild", x, (0, 1))
    assert not list(tmp_path.rglob("*.npz"))


@pytest.mark.usefixtures("without_figures")
def test_a_run_is_judged_by_the_reference_and_says_its_error(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pde_train.pdes.schroedinger_1d.RESOLUTIONS", ((128, 0.01), (256, 0.005)))
    monkeypatch.setattr(base, "WORST", 1.0)
    monkeypatch.setenv("PDE_TRAIN_CACHE", str(tmp_path))
    words = ["model.hidden=[6]", "method.steps=20", "method.log_every=10", "method.compile=never", "diagnostics=none"]
    cfg = compose("pde=schroedinger_1d", "sampler=uniform", "sampler.interior=20", "sampler.boundary=8", *words)
    problem = build(cfg).problem
    assert problem.pde.has_exact
    assert 0 < problem.reference_error < 1e-2
    titles = [axes.get_title() for axes in figures.solution(problem).axes]
    assert {"u, model", "u, reference", "v, model", "v, reference"} <= set(titles)
    run_config(cfg, tmp_path / "run", {}, [])
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["metrics"]["reference_error"] == problem.reference_error
    assert {"error_l2", "error_l2/u", "error_l2/v"} <= set(result["metrics"])
    assert result["metrics"]["flag/at_reference"] == 0

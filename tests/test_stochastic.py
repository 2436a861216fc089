"""Random directions: right in the mean, exact where nothing is left to chance, good enough to train by."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures import Compose
from torch import Tensor

from pde_train.derivatives import Field, Request
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.reverse import Reverse
from pde_train.differentiators.stochastic import Stochastic
from pde_train.differentiators.taylor import Taylor
from pde_train.errors import UsageError
from pde_train.experiment import build
from pde_train.runs.run import run

KINDS = ("random", "sparse")


def coordinates(d: int) -> tuple[str, ...]:
    return tuple(f"x{i}" for i in range(1, d + 1))


def field(d: int, columns: int = 1) -> Field:
    """A network of 8 tanh units on d coordinates, with weights of norm near 1, whose mixed derivatives are not 0."""
    generator = np.random.default_rng(d)
    w = torch.tensor(generator.normal(0, 1 / math.sqrt(d), (d, 8)))
    b, a = torch.tensor(generator.uniform(-1, 1, 8)), torch.tensor(generator.uniform(-1, 1, (8, columns)))
    return lambda x: torch.tanh(x @ w + b) @ a


def points(n: int, d: int) -> Tensor:
    return torch.tensor(np.random.default_rng(0).uniform(-1, 1, (n, d)))


def exact(u: Field, x: Tensor, name: str) -> Tensor:
    return getattr(Taylor()(u, x, Request.parse(name, coordinates(x.shape[1]))), name)


def estimates(differentiator: Differentiator, u: Field, x: Tensor, name: str, samples: int, seed: int = 0) -> Tensor:
    """That many independent estimates, (samples, n, m)."""
    torch.manual_seed(seed)
    asked = Request.parse(name, coordinates(x.shape[1]))
    return torch.stack([getattr(differentiator(u, x, asked), name) for _ in range(samples)])


@pytest.mark.parametrize("d", [3, 10])
@pytest.mark.parametrize("name", ["lap_u", "bih_u"])
@pytest.mark.parametrize("kind", KINDS)
def test_estimates_are_unbiased(kind: str, name: str, d: int) -> None:
    u, x = field(d), points(4, d)
    found = estimates(Stochastic(2, kind), u, x, name, 1000)
    error = found.mean(0) - exact(u, x, name)
    deviation = found.std(0) / math.sqrt(len(found))
    # 4.5 standard deviations of the mean: 7e-6 for each of 4 points, if the seed were not fixed
    assert (error.abs() <= 4.5 * deviation).all()
    assert (deviation > 0).all()
    # and sharp enough to see a wrong factor: that of d (d + 2) / 3 in place of d^2 / 3 is 20 % at d = 10
    assert float(deviation.norm() / exact(u, x, name).norm()) < 0.1


@pytest.mark.parametrize("d", [3, 10])
@pytest.mark.parametrize("name", ["lap_u", "bih_u"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_variance_falls_as_one_over_the_probes(kind: str, name: str, d: int) -> None:
    u, x = field(d), points(4, d)
    variances = [float(estimates(Stochastic(p, kind), u, x, name, 600).var(0).mean()) for p in (1, 2)]
    # sparse lap u draws without repetition: (1 - probes / d) times that
    finite = (d - 2) / (d - 1) if (kind, name) == ("sparse", "lap_u") else 1.0
    # the variance of 600 has a standard deviation of 10 % or so, that of the ratio is 15 %
    assert variances[1] / variances[0] == pytest.approx(finite / 2, rel=0.5)


@pytest.mark.parametrize("probes", [3, 10, 64])
def test_a_laplacian_from_all_coordinates_is_exact(probes: int) -> None:
    u, x = field(3, columns=2), points(5, 3)
    (found,) = estimates(Stochastic(probes, "sparse"), u, x, "lap_u", 1)
    torch.testing.assert_close(found, exact(u, x, "lap_u"), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["lap_u", "bih_u"])
def test_on_a_line_nothing_is_left_to_chance(name: str, kind: str) -> None:
    u, x = field(1), points(5, 1)
    found = estimates(Stochastic(3, kind), u, x, name, 3)
    torch.testing.assert_close(found, exact(u, x, name).expand(3, 5, 1), rtol=1e-13, atol=1e-13)


def test_signs_are_exact_for_a_sum_of_functions_of_one_coordinate() -> None:
    # Hutchinson's estimate with entries +-1 has the diagonal of the Hessian exactly; its variance is that of the rest
    x = points(5, 10)
    (found,) = estimates(Stochastic(1), lambda x: torch.sin(x).sum(1, keepdim=True), x, "lap_u", 1)
    torch.testing.assert_close(found, -torch.sin(x).sum(1, keepdim=True), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_all_other_names_are_exact(kind: str) -> None:
    u, x = field(3, columns=2), points(5, 3)
    asked = Request.parse("u u_x1 u_x2x3 u_x1x1 u_x1x1x3x3 lap_u bih_u", coordinates(3))
    found, reverse = Stochastic(1, kind)(u, x, asked), Reverse()(u, x, asked)
    assert set(found.columns) == {*coordinates(3), *asked.names}
    for name in asked.names - {"lap_u", "bih_u"}:
        torch.testing.assert_close(getattr(found, name), getattr(reverse, name), rtol=1e-12, atol=1e-13)
    for name in ("lap_u", "bih_u"):
        assert float((getattr(found, name) - getattr(reverse, name)).abs().max()) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_time_is_no_direction(kind: str) -> None:
    def u(p: Tensor) -> Tensor:  # u_tt is 1000 times the rest
        return torch.sin(p[:, :1]) * torch.cos(p[:, 1:2]) + 500 * p[:, 2:] * p[:, 2:]

    x, asked = points(5, 3), Request.parse("lap_u u_t", ("x", "y", "t"))
    torch.manual_seed(0)
    found = Stochastic(2, kind)(u, x, asked)
    assert float(found.lap_u.abs().max()) < 8
    torch.testing.assert_close(found.u_t, 1000 * x[:, 2:], rtol=1e-13, atol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["lap_u", "bih_u"])
def test_a_seed_repeats_the_directions_and_another_does_not(name: str, kind: str) -> None:
    u, x = field(10), points(3, 10)
    first, second, other = (estimates(Stochastic(2, kind), u, x, name, 2, seed) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("probes", [0, -1, 2.0, "all", None])
def test_no_number_of_directions_is_refused(probes: Any) -> None:
    with pytest.raises(UsageError, match=rf"differentiator\.probes={probes} leaves no direction: expected a positive"):
        Stochastic(probes)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UsageError, match=r"differentiator\.kind=dense is unknown: expected one of random, sparse"):
        Stochastic(kind="dense")


# --- Training in many dimensions


TRAINING = [
    *("pde=poisson_nd", "model=two_layer", "method=gradient_descent", "differentiator=stochastic", "optimizer.lr=1e-2"),
    *("diagnostics=none", "audit.factor=null", "sampler.boundary=200", "method.log_every=1000"),
]


@pytest.mark.usefixtures("without_figures")
def test_directions_are_those_of_the_seed_whatever_was_built_since(compose: Compose, tmp_path: Path) -> None:
    words = [*TRAINING, "pde.dimension=3", "sampler.interior=10", "sampler.boundary=6", "method.steps=3"]
    alone = run(build(compose(*words, "seed=0")), tmp_path / "alone").series["loss"]
    first, _ = (build(compose(*words, f"seed={seed}")) for seed in (0, 1))
    assert run(first, tmp_path / "first").series["loss"] == alone


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize(
    ("kind", "d", "steps", "settings", "loss", "error"),
    [
        ("random", 100, 150, ["sampler.interior=100"], 0.03, 0.6),
        ("sparse", 100, 150, ["sampler.interior=100"], 0.03, 0.6),
        # u and lap u are 636 and -6283 here: softplus reaches both in few steps, as its weights may grow
        ("random", 1000, 80, ["sampler.interior=50", "model.activation=softplus", "model.weight_range=1"], 0.7, 0.2),
    ],
)
def test_poisson_in_many_dimensions_trains(
    compose: Compose, tmp_path: Path, kind: str, d: int, steps: int, settings: list[str], loss: float, error: float
) -> None:
    settings = [*settings, f"pde.dimension={d}", f"method.steps={steps}", f"differentiator.kind={kind}"]
    series = run(build(compose(*TRAINING, *settings)), tmp_path).series
    losses = [series["loss"][k] for k in range(steps)]
    assert np.mean(losses[-10:]) < loss * losses[0]
    assert series["error_l2"][steps] < error * series["error_l2"][0]

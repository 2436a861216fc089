"""The network models: their formulas, initial weights and derivatives, compiled and stacked steps."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from fixtures import Compose, descent_of, interpret
from scipy import stats
from torch import Tensor, nn

from pde_train.derivatives import Request
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.complex_step import ComplexStep
from pde_train.differentiators.finite_difference import FiniteDifference
from pde_train.differentiators.forward import Forward
from pde_train.differentiators.reverse import Reverse
from pde_train.differentiators.taylor import Taylor
from pde_train.errors import UsageError
from pde_train.experiment import build
from pde_train.geometry import Batch
from pde_train.models.fourier_features import FourierFeatures
from pde_train.models.mlp import MLP
from pde_train.models.modified_mlp import ModifiedMLP
from pde_train.models.pirate_net import PirateNet
from pde_train.models.residual import Residual
from pde_train.models.siren import Siren
from pde_train.problem import Problem
from pde_train.training.compiled_steps import CompiledSteps
from pde_train.training.signals import StopSignals
from pde_train.training.stacked_steps import StackedSteps
from pde_train.training.steps import EagerSteps

EPS = torch.finfo(torch.float64).eps

MADE = {
    "fourier_features": lambda d, seed=0: FourierFeatures(d, [6, 5], "tanh", 4, 0.3, seed),
    "modified_mlp": lambda d, seed=0: ModifiedMLP(d, 6, 3, "tanh", seed),
    "pirate_net": lambda d, seed=0: PirateNet(d, 6, 2, "tanh", 1.0, seed),
    "siren": lambda d, seed=0: Siren(d, [6, 5], 3.0, seed),
    "residual": lambda d, seed=0: Residual(d, 6, 2, "tanh", seed),
}
SMALL = {
    "fourier_features": ["model.hidden=[4]", "model.frequencies=3"],
    "modified_mlp": ["model.width=4"],
    "pirate_net": ["model.width=4"],
    "siren": ["model.hidden=[4]", "model.omega=3"],
    "residual": ["model.width=4"],
}
Arrays = dict[str, np.ndarray]
"""The parameters of a network by name."""

every_network = pytest.mark.parametrize("name", MADE)


def trained(name: str, dimension: int, seed: int = 0) -> nn.Module:
    """A network all of whose parameters have values as after training: none of them 0."""
    model = MADE[name](dimension, seed)
    rng = np.random.default_rng(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.from_numpy(0.3 * rng.uniform(-1, 1, parameter.shape)))
    return model


def points(count: int, dimension: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(3).uniform(-1, 1, (count, dimension)))


def arrays(model: nn.Module) -> Arrays:
    return {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}


# --- Formulas, written out once more in numpy


def affine(a: Arrays, name: str, z: np.ndarray) -> np.ndarray:
    return z @ a[f"{name}.weight"].T + a.get(f"{name}.bias", 0.0)


def layers(a: Arrays, name: str, z: np.ndarray, s: Callable[[np.ndarray], np.ndarray] = np.tanh) -> np.ndarray:
    count = sum(key.startswith(name) and key.endswith("weight") for key in a)
    for i in range(count):
        z = affine(a, f"{name}.{i}", z)
        z = s(z) if i < count - 1 else z
    return z


def embedded(a: Arrays, x: np.ndarray) -> np.ndarray:
    phases = x @ a["embedding.frequencies"].T
    return np.hstack([np.cos(phases), np.sin(phases)])


def modified_mlp(a: Arrays, x: np.ndarray) -> np.ndarray:
    u, v, h = np.tanh(affine(a, "encoders.0", x)), np.tanh(affine(a, "encoders.1", x)), x
    for i in range(3):
        z = np.tanh(affine(a, f"hidden.{i}", h))
        h = u - z * u + z * v
    return affine(a, "last", h)


def pirate_net(a: Arrays, x: np.ndarray) -> np.ndarray:
    x = embedded(a, x)
    u, v = np.tanh(affine(a, "encoders.0", x)), np.tanh(affine(a, "encoders.1", x))
    for i in range(2):
        z = x
        for j in range(2):
            f = np.tanh(affine(a, f"blocks.{i}.layers.{j}", z))
            z = f * u + (1 - f) * v
        alpha = a[f"blocks.{i}.alpha"]
        x = alpha * np.tanh(affine(a, f"blocks.{i}.layers.2", z)) + (1 - alpha) * x
    return affine(a, "last", x)


def residual(a: Arrays, x: np.ndarray) -> np.ndarray:
    z = affine(a, "first", x)
    for i in range(2):
        z = z + np.tanh(affine(a, f"blocks.{2 * i + 1}", np.tanh(affine(a, f"blocks.{2 * i}", z))))
    return affine(a, "last", z)


FORMULAS = {
    "fourier_features": lambda a, x: layers(a, "mlp.layers", embedded(a, x)),
    "modified_mlp": modified_mlp,
    "pirate_net": pirate_net,
    "siren": lambda a, x: layers(a, "layers", x, lambda z: np.sin(3.0 * z)),
    "residual": residual,
}


@every_network
@pytest.mark.parametrize("dimension", [1, 3])
def test_a_network_is_its_formula(name: str, dimension: int) -> None:
    model, x = trained(name, dimension), points(7, dimension)
    found = model(x).detach().numpy()
    assert found.shape == (7, 1)
    expected = FORMULAS[name](arrays(model), x.numpy())
    # sums of a few dozen terms of size 1, in another order, through five layers
    np.testing.assert_allclose(found, expected, rtol=0, atol=500 * EPS)


COUNTS = {  # weights and biases of a network for d coordinates, as in MADE
    "fourier_features": lambda d: (8 * 6 + 6) + (6 * 5 + 5) + (5 + 1),
    "modified_mlp": lambda d: 3 * (d * 6 + 6) + 2 * (6 * 6 + 6) + (6 + 1),
    "pirate_net": lambda d: 2 * (6 * 6 + 6) + 2 * (3 * (6 * 6 + 6) + 1) + 6,
    "siren": lambda d: (d * 6 + 6) + (6 * 5 + 5) + (5 + 1),
    "residual": lambda d: (d * 6 + 6) + 4 * (6 * 6 + 6) + (6 + 1),
}


@every_network
@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_the_number_of_parameters_is_that_of_the_papers(name: str, dimension: int) -> None:
    model = MADE[name](dimension)
    assert sum(p.numel() for p in model.parameters()) == COUNTS[name](dimension)
    assert all(p.requires_grad and p.dtype == torch.float64 for p in model.parameters())


@every_network
def test_the_seed_alone_decides_the_numbers_of_a_network(name: str) -> None:
    def numbers(seed: int) -> Tensor:
        return torch.cat([tensor.flatten() for tensor in MADE[name](2, seed).state_dict().values()])

    torch.manual_seed(1)
    np.random.seed(1)
    first, state = numbers(3), torch.get_rng_state()
    np.random.seed(2)
    assert torch.equal(numbers(3), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(numbers(4), first)


# --- Initial weights


def test_frequencies_are_normal_and_not_trained() -> None:
    model = FourierFeatures(2, [4], "tanh", 5000, 0.5, seed=1)
    frequencies = model.embedding.frequencies.flatten().numpy() / (2 * math.pi)
    assert "embedding.frequencies" in model.state_dict()
    assert not any("frequencies" in name for name, _ in model.named_parameters())
    assert stats.kstest(frequencies, "norm", (0, 0.5)).pvalue > 0.01
    pirate = PirateNet(3, 2000, 1, "tanh", 2.0, seed=1).embedding.frequencies.flatten().numpy()
    assert stats.kstest(pirate, "norm", (0, 2.0)).pvalue > 0.01


def test_the_layers_behind_fourier_features_are_those_of_a_network_of_the_same_seed() -> None:
    model, plain = FourierFeatures(2, [4, 3], "tanh", 5, 1.0, seed=6), MLP(10, [4, 3], "tanh", seed=6)
    assert all(torch.equal(a, b) for a, b in zip(model.mlp.parameters(), plain.parameters(), strict=True))


def test_the_mean_of_products_of_features_is_the_gaussian_kernel() -> None:
    # Rahimi and Recht: the mean of cos(b . (x - y)) over b ~ N(0, s^2) is exp(-s^2 |x - y|^2 / 2)
    count = 20000
    embedding, x = FourierFeatures(2, [1], "tanh", count, 0.2, seed=0).embedding, points(6, 2)
    kernel = (embedding(x) @ embedding(x).T / count).numpy()
    distance = torch.cdist(x, x).numpy()
    expected = np.exp(-((2 * math.pi * 0.2 * distance) ** 2) / 2)
    np.testing.assert_allclose(kernel, expected, rtol=0, atol=5 / math.sqrt(count))


def test_a_pirate_net_begins_as_a_combination_of_its_embedding() -> None:
    model, x = PirateNet(2, 8, 3, "tanh", 1.0, seed=2), points(5, 2)
    blocks: Any = model.blocks
    assert [float(block.alpha.detach()) for block in blocks] == [0, 0, 0]
    expected = model.embedding(x) @ model.last.weight.T
    torch.testing.assert_close(model(x), expected, rtol=0, atol=8 * EPS)
    model(x).square().sum().backward()
    # from the first step on alpha is trained: its derivative is (h - x) . w
    assert all(bool(block.alpha.grad != 0) for block in blocks)


@pytest.mark.parametrize("make", [lambda: ModifiedMLP(3, 50, 2, "tanh", 0), lambda: Residual(3, 50, 2, "tanh", 0)])
def test_other_weights_are_glorot_uniform(make: Callable[[], nn.Module]) -> None:
    for name, tensor in make().named_parameters():
        if name.endswith("bias"):
            assert not tensor.any()
        else:
            bound = math.sqrt(6 / sum(tensor.shape))
            # of n uniform draws the largest falls short by 1 / n on average
            assert bound * (1 - 10 / tensor.numel()) <= float(tensor.detach().abs().max()) <= bound


def test_siren_weights_fill_the_bounds_of_the_paper() -> None:
    layers: Any = Siren(2, [200, 100], 30.0, seed=0).layers
    for i, layer in enumerate(layers):
        inputs = layer.weight.shape[1]
        for tensor, bound in ((layer.weight, math.sqrt(6 / inputs) / 30 if i else 1 / inputs), (layer.bias, 0)):
            bound = bound or 1 / math.sqrt(inputs)
            largest = float(tensor.detach().abs().max())
            assert bound * (1 - 10 / tensor.numel()) <= largest <= bound


def test_the_sums_inside_of_a_siren_have_a_standard_deviation_of_1_at_every_depth() -> None:
    layers: Any = Siren(1, [512] * 4, 30.0, seed=0).layers
    z = torch.from_numpy(np.linspace(-1, 1, 2000))[:, None]
    with torch.no_grad():
        for i, layer in enumerate(layers[:-1]):
            sums = 30 * (z @ layer.weight.T)
            if i:
                # the paper's theorem 1.8 is about infinite width; 512 * 512 weights leave some per cent
                assert float(sums.std()) == pytest.approx(1, abs=0.1)
            z = torch.sin(sums + 30 * layer.bias)


# --- Derivatives

NAMES = "u u_x u_y u_xx u_xy u_yy u_xxy u_xxxx"


def columns(differentiator: Differentiator, model: nn.Module, x: Tensor, names: str = NAMES) -> dict[str, Tensor]:
    jet = differentiator(model, x, Request.parse(names, ("x", "y")))
    return {k: jet.columns[k].detach() for k in names.split()}


@every_network
@pytest.mark.parametrize("differentiator", [Taylor(), Forward()], ids=lambda d: type(d).__name__)
def test_exact_derivatives_agree(name: str, differentiator: Differentiator) -> None:
    model, x = trained(name, 2), points(9, 2)
    found, expected = columns(differentiator, model, x), columns(Reverse(), model, x)
    for k, column in expected.items():
        # roundings of the largest of the sums that make up a derivative, some hundred of them
        tolerance = 200 * EPS * max(1.0, float(column.abs().max()))
        torch.testing.assert_close(found[k], column, rtol=0, atol=tolerance, msg=lambda m: f"{k}: {m}")  # noqa: B023


@every_network
def test_contour_integrals_agree_with_exact_derivatives(name: str) -> None:
    model, x = trained(name, 2), points(9, 2)
    request = Request.parse(NAMES, ("x", "y"))
    found, expected = columns(ComplexStep().tuned_to(model, x, request.axes), model, x), columns(Reverse(), model, x)
    for k, column in expected.items():
        order = len(k.removeprefix("u").removeprefix("_"))
        # n! eps / r^n with a radius r of 0.3 or more, and sums of at most four directions
        tolerance = 100 * math.factorial(order) / 0.3**order * EPS * max(1.0, float(column.abs().max()))
        torch.testing.assert_close(found[k], column, rtol=0, atol=tolerance, msg=lambda m: f"{k}: {m}")  # noqa: B023


@every_network
def test_finite_differences_converge_to_exact_derivatives_with_their_order(name: str) -> None:
    model, x = trained(name, 2), points(9, 2)
    expected = columns(Reverse(), model, x, "u_x u_xx u_xy")
    errors = []
    for step in (0.04, 0.02):
        found = columns(FiniteDifference(4, step), model, x, "u_x u_xx u_xy")
        errors.append(torch.stack([(found[k] - c).norm() for k, c in expected.items()]))
    order = torch.log2(errors[0] / errors[1])
    # the next term of the error, h^6, changes the ratio by a few per cent
    torch.testing.assert_close(order, torch.full_like(order, 4.0), rtol=0, atol=0.3)


# --- Compiled and stacked steps


def posed(compose: Compose, name: str, *words: str) -> tuple[Problem, torch.optim.Optimizer, Batch]:
    overrides = [f"model={name}", *SMALL[name], "pde=poisson_2d", "sampler=uniform", "sampler.interior=12"]
    experiment = build(compose(*overrides, "sampler.boundary=8", *words))
    problem = experiment.problem
    return problem, descent_of(experiment).optimizer(problem.model.parameters()), problem.draw(np.random.default_rng(0))


OPTIONS = [[], ["model.input_scaling=true", "model.output_scale=3.0", "model.periodic=[y]"]]


@every_network
@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "options"])
def test_a_traced_step_is_the_eager_one(compose: Compose, name: str, options: list[str]) -> None:
    (problem, optimizer, batch), (own, mine, points) = (posed(compose, name, *options) for _ in range(2))
    traced = CompiledSteps(problem, optimizer, StopSignals(), batch)
    interpret(traced.compiled.first)
    losses = traced.take(batch, 3), EagerSteps(own, mine, StopSignals()).take(points, 3)
    torch.testing.assert_close(*losses, rtol=1e-10, atol=0)  # Adam divides by square roots of small gradients
    for found, expected in zip(problem.model.parameters(), own.model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@every_network
@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "options"])
def test_networks_of_other_seeds_take_their_own_steps_in_a_stack(
    compose: Compose, name: str, options: list[str]
) -> None:
    alone, together = ([posed(compose, name, *options, f"seed={seed}") for seed in (1, 2)] for _ in range(2))
    problems, optimizers, batches = zip(*together, strict=True)
    stack = StackedSteps(problems, optimizers, batches, StopSignals(), block=2)
    stack.trace()
    found = stack.advance(stack.batches, 3)
    assert not torch.equal(found[0], found[1])
    for i, (problem, optimizer, batch) in enumerate(alone):
        expected = EagerSteps(problem, optimizer, StopSignals()).take(batch, 3)
        torch.testing.assert_close(found[i], expected, rtol=1e-10, atol=0)


# --- Refusals


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ModifiedMLP(1, 0, 2, "tanh", 0), r"model\.width=0 makes no network: expected a positive integer"),
        (lambda: ModifiedMLP(1, 4, -1, "tanh", 0), r"model\.layers=-1 makes no network"),
        (lambda: PirateNet(1, 5, 1, "tanh", 1.0, 0), r"model\.width=5 is odd.*expected an even number"),
        (lambda: PirateNet(1, 4, 0, "tanh", 1.0, 0), r"model\.blocks=0 makes no network"),
        (lambda: PirateNet(1, 4, 1, "tanh", 0.0, 0), r"model\.frequency_scale=0.0 spreads no frequencies"),
        (lambda: FourierFeatures(1, [4], "tanh", 0, 1.0, 0), r"model\.frequencies=0 makes no network"),
        (lambda: FourierFeatures(1, [4], "swish", 3, 1.0, 0), r"model\.activation=swish is unknown"),
        (lambda: FourierFeatures(1, [], "tanh", 3, 1.0, 0), r"hidden layers \[\] make no network"),
        (lambda: Siren(1, [0], 30.0, 0), r"hidden layers \[0\] make no network"),
        (lambda: Siren(1, [4], -1.0, 0), r"model\.omega=-1.0 makes no waves: expected a positive number"),
        (lambda: Residual(1, 4, 0, "tanh", 0), r"model\.blocks=0 makes no network"),
        (lambda: Residual(1, 10**9, 2, "tanh", 0), r"model asks for .* numbers"),
    ],
)
def test_what_makes_no_network_is_refused(make: Callable[[], nn.Module], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        make()


@pytest.mark.parametrize("name", [name for name in MADE if name != "siren"])
def test_relu_has_one_useful_derivative_in_every_network(compose: Compose, name: str) -> None:
    with pytest.raises(UsageError, match=r"model\.activation=relu has useful derivatives up to order 1"):
        build(compose(f"model={name}", "model.activation=relu"))

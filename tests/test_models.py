import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pde_train.errors import UsageError
from pde_train.models.activations import ACTIVATIONS, activation_named
from pde_train.models.base import linear_form, smoothness_of
from pde_train.models.mlp import MLP
from pde_train.models.random_features import RandomFeatures
from pde_train.models.two_layer import two_layer

EPS = torch.finfo(torch.float64).eps
DEFINITIONS = {
    "tanh": mpmath.tanh,
    "sin": mpmath.sin,
    "gelu": lambda z: z * (1 + mpmath.erf(z / mpmath.sqrt(2))) / 2,
    "softplus": lambda z: mpmath.log(1 + mpmath.exp(z)),
    "sigmoid": lambda z: 1 / (1 + mpmath.exp(-z)),
    "silu": lambda z: z / (1 + mpmath.exp(-z)),
    "gaussian": lambda z: mpmath.exp(-(z**2)),
    "relu": lambda z: max(z, mpmath.mpf(0)),
}


def linear_layers(model: MLP) -> list[tuple[np.ndarray, np.ndarray]]:
    layers = [layer for layer in model.layers if isinstance(layer, nn.Linear)]
    return [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in layers]


# --- Activations


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_its_definition(name: str) -> None:
    z = np.array([-30.0, -5.0, -1.3, -0.2, 0.0, 0.4, 1.0, 2.7, 8.0, 30.0])
    with mpmath.workdps(30):
        expected = [float(DEFINITIONS[name](mpmath.mpf(v))) for v in z]
    found = ACTIVATIONS[name].function(torch.from_numpy(z)).numpy()
    # a few roundings of the value, or, where the terms of the definition cancel (gelu), of the argument
    np.testing.assert_allclose(found, expected, rtol=4 * EPS, atol=30 * EPS)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_works_entry_by_entry(name: str) -> None:
    z = torch.linspace(-2, 2, 12, dtype=torch.float64)
    function = activation_named(name).function
    torch.testing.assert_close(function(z.view(3, 4)).flatten(), function(z), rtol=4 * EPS, atol=4 * EPS)


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name != "relu"])
def test_smooth_activations_have_derivatives_of_every_order(name: str) -> None:
    assert ACTIVATIONS[name].smoothness == math.inf
    assert MLP(1, [2], name, seed=0).smoothness == math.inf


def test_relu_has_one_useful_derivative() -> None:
    assert ACTIVATIONS["relu"].smoothness == 1
    assert MLP(1, [2], "relu", seed=0).smoothness == 1
    assert RandomFeatures(1, 2, "relu", 1.0, seed=0).smoothness == 1


@pytest.mark.parametrize(
    "make",
    [
        activation_named,
        lambda name: MLP(1, [2], name, seed=0),
        lambda name: two_layer(1, 2, name, seed=0),
        lambda name: RandomFeatures(1, 2, name, 1.0, seed=0),
    ],
    ids=["by name", "mlp", "two layer", "random features"],
)
@pytest.mark.parametrize("name", ["swish", "Tanh", ""])
def test_an_unknown_activation_is_refused_with_those_that_exist(make: Callable[[str], object], name: str) -> None:
    with pytest.raises(UsageError, match=rf"model\.activation={name} is unknown: expected one of tanh, sin, .*relu"):
        make(name)


# --- Random features


@pytest.mark.parametrize("dimension", [1, 2, 3])
@pytest.mark.parametrize("seed", [0, 5])
def test_random_features_are_numpys_draws_all_weights_then_all_biases(dimension: int, seed: int) -> None:
    model = RandomFeatures(dimension, 7, "tanh", 2.5, seed)
    rng = np.random.default_rng(seed)
    np.testing.assert_array_equal(model.weights.numpy(), rng.uniform(-2.5, 2.5, (7, dimension)))
    np.testing.assert_array_equal(model.biases.numpy(), rng.uniform(-2.5, 2.5, 7))


def test_the_features_of_the_paper_are_those_of_two_draws() -> None:
    # the anchors were computed with rng.uniform(-3, 3, 100) twice
    model, rng = RandomFeatures(1, 100, "tanh", 3.0, 0), np.random.default_rng(0)
    np.testing.assert_array_equal(model.weights.numpy()[:, 0], rng.uniform(-3, 3, 100))
    np.testing.assert_array_equal(model.biases.numpy(), rng.uniform(-3, 3, 100))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_features_are_the_activation_of_an_affine_map(activation: str) -> None:
    model = RandomFeatures(2, 5, activation, 1.5, seed=1)
    x = np.random.default_rng(2).uniform(-1, 1, (4, 2))
    w, b = model.weights.numpy(), model.biases.numpy()
    expected = [[float(DEFINITIONS[activation](mpmath.mpf(float(w[j] @ row + b[j])))) for j in range(5)] for row in x]
    np.testing.assert_allclose(model.features(torch.from_numpy(x)).numpy(), expected, rtol=0, atol=20 * EPS)


def test_the_value_is_the_bank_times_the_coefficients() -> None:
    model = RandomFeatures(2, 5, "sin", 3.0, seed=1)
    x = torch.from_numpy(np.random.default_rng(2).uniform(-1, 1, (4, 2)))
    assert model(x).shape == (4, 1)
    assert not model(x).any()
    with torch.no_grad():
        model.coefficients.copy_(torch.arange(5, dtype=torch.float64).unsqueeze(1))
        expected = sum(j * model.features(x)[:, j : j + 1] for j in range(5))
        torch.testing.assert_close(model(x), expected, rtol=0, atol=100 * EPS)


def test_only_the_coefficients_are_trained_and_all_is_saved() -> None:
    model = RandomFeatures(2, 5, "sin", 3.0, seed=1)
    assert [(name, p.shape) for name, p in model.named_parameters()] == [("coefficients", (5, 1))]
    assert set(model.state_dict()) == {"weights", "biases", "coefficients"}


@pytest.mark.parametrize("features", [0, -2])
def test_a_model_needs_a_feature(features: int) -> None:
    with pytest.raises(UsageError, match=rf"model\.features={features} makes no model: expected a positive number"):
        RandomFeatures(1, features, "tanh", 1.0, seed=0)


# --- Networks


def test_a_network_is_its_formula() -> None:
    model = MLP(2, [3, 4], "tanh", seed=0, weight_range=1.0)
    x = np.random.default_rng(2).uniform(-1, 1, (5, 2))
    (w0, b0), (w1, b1), (w2, b2) = linear_layers(model)
    expected = np.tanh(np.tanh(x @ w0.T + b0) @ w1.T + b1) @ w2.T + b2
    found = model(torch.from_numpy(x)).detach().numpy()
    assert found.shape == (5, 1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=20 * EPS)


@pytest.mark.parametrize("seed", [0, 4])
@pytest.mark.parametrize("weight_range", [None, 2.0])
def test_weights_are_numpys_draws_layer_by_layer(seed: int, weight_range: float | None) -> None:
    rng = np.random.default_rng(seed)
    for i, (weight, bias) in enumerate(linear_layers(MLP(2, [3, 4], "tanh", seed, weight_range))):
        glorot = weight_range is None or i == 2
        reach = math.sqrt(6 / sum(weight.shape)) if weight_range is None or i == 2 else weight_range
        # the reach itself may be rounded in another way
        np.testing.assert_allclose(weight, rng.uniform(-reach, reach, weight.shape), rtol=4 * EPS)
        expected = np.zeros_like(bias) if glorot else rng.uniform(-reach, reach, bias.shape)
        np.testing.assert_array_equal(bias, expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: MLP(2, [3, 4], "tanh", seed),
        lambda seed: MLP(2, [3, 4], "tanh", seed, weight_range=1.0),
        lambda seed: RandomFeatures(2, 5, "tanh", 1.0, seed),
    ],
    ids=["mlp", "mlp in a range", "random features"],
)
def test_the_seed_alone_decides_the_weights(make: Callable[[int], nn.Module]) -> None:
    def numbers(model: nn.Module) -> Tensor:
        return torch.cat([tensor.flatten() for tensor in model.state_dict().values()])

    torch.manual_seed(1)
    np.random.seed(1)
    first, state = numbers(make(3)), torch.get_rng_state()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    np.random.seed(2)
    before = torch.get_rng_state()
    assert torch.equal(numbers(make(3)), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(numbers(make(4)), first)


def test_glorot_weights_fill_their_bounds_and_biases_are_zero() -> None:
    for weight, bias in linear_layers(MLP(2, [200, 100], "tanh", seed=0)):
        bound = math.sqrt(6 / (weight.shape[0] + weight.shape[1]))
        assert np.abs(weight).max() <= bound
        # of n uniform draws the largest falls short by 1 / n on average
        assert np.abs(weight).max() >= bound * (1 - 10 / weight.size)
        assert not bias.any()


def test_a_weight_range_holds_for_hidden_weights_and_biases_only() -> None:
    *hidden, (last, last_bias) = linear_layers(MLP(2, [200, 100], "tanh", seed=0, weight_range=5.0))
    for weight, bias in hidden:
        for drawn in (weight, bias):
            assert 5 * (1 - 10 / drawn.size) <= np.abs(drawn).max() <= 5
    assert np.abs(last).max() <= math.sqrt(6 / 101)
    assert not last_bias.any()


def test_a_two_layer_network_is_a_network_of_one_hidden_layer() -> None:
    narrow, deep = two_layer(2, 6, "sin", 3, 1.5), MLP(2, [6], "sin", 3, 1.5)
    assert [tuple(p.shape) for p in narrow.parameters()] == [(6, 2), (6,), (1, 6), (1,)]
    assert all(torch.equal(a, b) for a, b in zip(narrow.parameters(), deep.parameters(), strict=True))


@pytest.mark.parametrize("model", [MLP(2, [3], "tanh", 0), RandomFeatures(2, 3, "tanh", 1.0, 0)], ids=["mlp", "rfm"])
def test_models_are_float64_as_drawn_and_can_be_cast(model: MLP | RandomFeatures) -> None:
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float64}
    assert model.to(torch.float32)(torch.zeros(1, 2)).dtype == torch.float32


def test_every_weight_of_a_network_is_trained() -> None:
    model = MLP(2, [3, 4], "tanh", seed=0)
    assert all(p.requires_grad for p in model.parameters())
    assert sum(p.numel() for p in model.parameters()) == (2 * 3 + 3) + (3 * 4 + 4) + (4 + 1)
    model(torch.ones(1, 2, dtype=torch.float64)).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("hidden", [[], [0], [3, -1]], ids=str)
def test_a_network_needs_hidden_layers(hidden: list[int]) -> None:
    with pytest.raises(
        UsageError, match=r"hidden layers \[.*\] make no network: expected positive widths, such as \[64,64\]"
    ):
        MLP(1, hidden, "tanh", seed=0)


class Plain(torch.nn.Module):
    """A model of a user, which derives from no class of ours."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :1]


class Quadratic(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.coefficients = torch.nn.Parameter(torch.ones(2, 1, dtype=torch.float64))

    def features(self, x: Tensor) -> Tensor:
        return torch.cat([x, x**2], dim=1)


class Former(Quadratic):
    features = None  # type: ignore[assignment]  # as in a class that never had the method
    bank = Quadratic.features


def test_a_module_of_a_user_is_smooth_and_not_linear() -> None:
    assert smoothness_of(Plain()) == math.inf
    assert linear_form(Plain()) is None
    assert linear_form(MLP(1, [2], "tanh", seed=0)) is None
    vision = torch.nn.Module()
    vision.features = torch.nn.Identity()  # as torchvision's networks have, which are not linear
    assert linear_form(vision) is None


def test_a_module_of_a_user_with_features_and_coefficients_is_linear() -> None:
    model, x = Quadratic(), torch.linspace(0, 1, 5, dtype=torch.float64)[:, None]
    form = linear_form(model)
    assert form.coefficients is model.coefficients
    assert torch.equal(form.features(x), model.features(x))


def test_a_bank_is_features_with_a_warning() -> None:
    x = torch.linspace(0, 1, 5, dtype=torch.float64)[:, None]
    with pytest.warns(FutureWarning, match=r"Former.bank is now called features: rename the method"):
        form = linear_form(Former())
    assert torch.equal(form.features(x), Quadratic().features(x))

"""Reverse mode: as good as its rounding, and no more work than the derivatives need."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from reference_networks import (
    BIASES,
    DTYPES,
    NAMES,
    SMOOTH,
    bank,
    difference,
    eps,
    network,
    one,
    oracle,
    points,
    request,
    through_outer,
)
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pde_train.derivatives import Field
from pde_train.differentiators.reverse import Reverse

in_both_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_activation = pytest.mark.parametrize("activation", SMOOTH)
every_name = pytest.mark.parametrize(("dimension", "name"), [(d, name) for d in (1, 2) for name in NAMES[d]])


@in_both_dtypes
@every_name
@every_activation
def test_reverse_mode_is_right_to_rounding(activation: str, dimension: int, name: str, dtype: torch.dtype) -> None:
    x = points(dimension, dtype)
    exact, size = oracle(activation, dimension, dtype, name)
    # `size` is the largest of the intermediate results, so an error is a few of its roundings: at most 1.5 eps were
    # seen, 8 leaves room for another order of summation.
    of_bank = one(Reverse(), bank(activation, dimension, dtype), x, name)
    assert of_bank.dtype == dtype
    assert (difference(of_bank, exact) <= 8 * eps(dtype) * size).all()
    exact, size = through_outer(exact, size, dtype)
    of_network = one(Reverse(), network(activation, dimension, dtype), x, name)
    assert of_network.dtype == dtype
    assert (difference(of_network, exact) <= 8 * eps(dtype) * size).all()


@in_both_dtypes
@every_name
def test_reverse_mode_gives_the_same_for_one_column_as_for_many(dimension: int, name: str, dtype: torch.dtype) -> None:
    # One column takes another path through the code than a bank does; both are right to the same few roundings.
    x, features = points(dimension, dtype), bank("tanh", dimension, dtype)
    _, size = oracle("tanh", dimension, dtype, name)
    together = one(Reverse(), features, x, name)
    for j in range(len(BIASES)):

        def column(x: Tensor, j: int = j) -> Tensor:
            return features(x)[:, j : j + 1]

        alone = one(Reverse(), column, x, name)
        assert alone.shape == (len(x), 1)
        assert (np.abs((together[:, j : j + 1] - alone).numpy()) <= 8 * eps(dtype) * size[:, j : j + 1]).all()


@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("names", ["u u_x u_xx u_xxx u_xxxx", "u_x u_xy u_xxy", "bih_u lap_u u"])
def test_reverse_mode_calls_the_field_once(names: str, m: int) -> None:
    called = []

    def field(x: Tensor) -> Tensor:
        called.append(x.shape)
        return bank("tanh", 2)(x)[:, :m]

    Reverse()(field, points(2), request(names, 2))
    assert called == [(2, 2)]


class Operations(TorchDispatchMode):
    """Counts what torch computes."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def cost(field: Field, names: str) -> int:
    """How many operations torch does for a request."""
    with Operations() as operations:
        Reverse().partials(field, points(2), request(names, 2).axes)
    return operations.count


network_and_bank = pytest.mark.parametrize("field", [network("tanh", 2), bank("tanh", 2)], ids=["network", "bank"])


@network_and_bank
@pytest.mark.parametrize(
    ("last", "prefixes"), [("u_xxxx", "u u_x u_xx u_xxx"), ("u_xxy", "u u_x u_xx"), ("bih_u", "u u_x u_xx u_xxx")]
)
def test_reverse_mode_shares_prefixes(field: Field, last: str, prefixes: str) -> None:
    assert cost(field, f"{last} {prefixes}") == cost(field, last) > cost(field, prefixes)


@network_and_bank
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_reverse_mode_differentiates_along_no_other_coordinate(field: Field, order: int) -> None:
    assert cost(field, "u_" + "y" * order) == cost(field, "u_" + "x" * order)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def small_network() -> nn.Module:
    """A network whose parameters can be told apart, in float64."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()
    generator = seeded()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.rand(p.shape, generator=generator, dtype=torch.float64) - 0.5)
    return model


def by_jacrev(model: nn.Module, x: Tensor, name: str) -> dict[str, Tensor]:
    def derivative(parameters: dict[str, Tensor]) -> Tensor:
        return one(Reverse(), lambda p: torch.func.functional_call(model, parameters, (p,)), x, name)

    found = torch.func.jacrev(derivative)({k: p.detach() for k, p in model.named_parameters()})
    return {k: jacobian[:, 0] for k, jacobian in found.items()}


@pytest.mark.parametrize(("i", "j"), [(0, 0), (3, 1)])
def test_gradients_by_the_parameters_are_those_of_differences_by_the_parameters(i: int, j: int) -> None:
    model, x, h = small_network(), points(2), 1e-3
    found = by_jacrev(model, x, "bih_u")["0.weight"][:, i, j]

    def moved(steps: int) -> Tensor:
        weight = model.get_parameter("0.weight").detach().clone()
        weight[i, j] += steps * h
        return one(Reverse(), lambda p: torch.func.functional_call(model, {"0.weight": weight}, (p,)), x, "bih_u")[:, 0]

    expected = (moved(-2) - 8 * moved(-1) + 8 * moved(1) - moved(2)).detach() / (12 * h)
    # truncation h^4 / 30 = 3e-14 of the ninth derivative of tanh, which reaches 8e3; rounding eps / h = 2e-13
    torch.testing.assert_close(found, expected, rtol=0, atol=3e-10)

"""Forward mode against reverse mode: two programs that share only the field."""

import subprocess
import sys

import pytest
import torch
from reference_networks import DTYPES, NAMES, SMOOTH, bank, eps, oracle, points, request
from torch import Tensor

from pde_train.differentiators.forward import Forward
from pde_train.differentiators.reverse import Reverse


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dimension", [1, 2, 3])
@pytest.mark.parametrize("activation", SMOOTH)
def test_forward_equals_reverse_to_order_four(activation: str, dimension: int, dtype: torch.dtype) -> None:
    x, u, asked = (
        points(dimension, dtype),
        bank(activation, dimension, dtype),
        request(" ".join(NAMES[dimension]), dimension),
    )
    forward, reverse = (d(u, x, asked) for d in (Forward(), Reverse()))
    for name in asked.names:
        _, size = oracle(activation, dimension, dtype, name)  # the largest of the intermediate results
        assert ((getattr(forward, name) - getattr(reverse, name)).abs().numpy() <= 16 * eps(dtype) * size).all(), name


@pytest.mark.parametrize("activation", ["tanh", "sin", "gaussian"])
def test_forward_equals_reverse_to_order_eight_on_a_line(activation: str) -> None:
    x, u = points(1), bank(activation, 1)
    axes = frozenset((0,) * n for n in range(9))
    forward, reverse = (d.partials(u, x, axes) for d in (Forward(), Reverse()))
    for n in range(9):
        _, size = oracle(activation, 1, torch.float64, "u_" + "x" * n if n else "u")
        assert ((forward[(0,) * n] - reverse[(0,) * n]).abs().numpy() <= 16 * eps(x.dtype) * size).all(), n


@pytest.mark.parametrize(
    ("names", "calls"),
    [("u", 1), ("u u_x u_xx u_xxx", 1), ("u_x u_y", 2), ("lap_u", 2), ("u u_x lap_u", 2), ("u_xy", 1), ("bih_u", 3)],
)
def test_no_derivative_is_pushed_forward_twice(names: str, calls: int) -> None:
    # one evaluation of the field for each way that the coordinates of a derivative end: bih u has xxxx, xxyy, yyyy
    called = []

    def field(x: Tensor) -> Tensor:
        called.append(x.shape)
        return bank("tanh", 2)(x)

    Forward()(field, points(2), request(names, 2))
    assert called == [(2, 2)] * calls


def test_no_warning_escapes_at_first_use() -> None:
    # what torch loads the first time warns of itself, so a fresh process it must be
    program = """
import warnings
import torch
from pde_train.derivatives import Request
from pde_train.differentiators.forward import Forward
warnings.simplefilter("error")
x = torch.rand(3, 1, dtype=torch.float64)
w = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
jet = Forward()(lambda x: torch.tanh(x @ w), x, Request.parse("u u_xx", ("x",)))
sum(c.square().sum() for c in jet.columns.values()).backward()
print(float(w.grad.abs()) > 0)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True\n"
    assert done.stderr == ""

from collections.abc import Mapping
from fractions import Fraction
from math import factorial

import pytest
import sympy

from pde_train.differentiators.stencils import ACCURACIES, central_weights, richardson_weights

ORDERS = (0, 1, 2, 3, 4)

matrix = pytest.mark.parametrize(("order", "accuracy"), [(n, p) for n in ORDERS for p in ACCURACIES])


def moment(weights: Mapping[int, Fraction], power: int) -> Fraction:
    return sum((w * Fraction(k) ** power for k, w in weights.items()), Fraction(0))


@matrix
def test_weights_are_those_of_sympy(order: int, accuracy: int) -> None:
    # A central stencil of 2 r + 1 points has 2 r + 1 >= order + accuracy - (1 for even orders) moments to satisfy.
    reach = 0 if order == 0 else (order + 1) // 2 - 1 + accuracy // 2
    nodes = list(range(-reach, reach + 1))
    expected = sympy.finite_diff_weights(order, nodes, 0)[order][-1]
    expected = {k: Fraction(int(w.p), int(w.q)) for k, w in zip(nodes, expected, strict=True) if w != 0}
    found = central_weights(order, accuracy)
    assert found == expected
    assert all(isinstance(w, Fraction) for w in found.values())


@matrix
def test_polynomials_below_the_accuracy_are_differentiated_exactly(order: int, accuracy: int) -> None:
    weights = central_weights(order, accuracy)
    for power in range(order + accuracy):
        assert moment(weights, power) == (factorial(order) if power == order else 0)


@pytest.mark.parametrize(("order", "accuracy"), [(n, p) for n in ORDERS[1:] for p in ACCURACIES])
def test_the_accuracy_is_no_higher_than_it_says(order: int, accuracy: int) -> None:
    assert moment(central_weights(order, accuracy), order + accuracy) != 0


@matrix
def test_weights_are_even_or_odd_as_the_order_is(order: int, accuracy: int) -> None:
    weights = central_weights(order, accuracy)
    assert all(weights[-k] == (-1) ** order * w for k, w in weights.items())


@matrix
def test_no_zero_weight_is_kept(order: int, accuracy: int) -> None:
    weights = central_weights(order, accuracy)
    assert len(weights) >= 1
    assert all(weights.values())


@pytest.mark.parametrize("accuracy", ACCURACIES)
def test_order_zero_is_the_point_itself(accuracy: int) -> None:
    assert central_weights(0, accuracy) == {0: 1}


def test_textbook_stencils() -> None:
    assert central_weights(1, 2) == {-1: Fraction(-1, 2), 1: Fraction(1, 2)}
    assert central_weights(2, 2) == {-1: 1, 0: -2, 1: 1}
    assert central_weights(4, 2) == {-2: 1, -1: -4, 0: 6, 1: -4, 2: 1}
    assert central_weights(2, 4)[0] == Fraction(-5, 2)


@pytest.mark.parametrize("levels", range(5))
@pytest.mark.parametrize("accuracy", ACCURACIES)
def test_extrapolation_keeps_the_value_and_removes_one_power_after_another(accuracy: int, levels: int) -> None:
    weights = richardson_weights(accuracy, levels)
    assert len(weights) == levels + 1
    assert sum(weights) == 1
    for power in range(accuracy, accuracy + 2 * levels, 2):
        assert sum(w * Fraction(1, 2**level) ** power for level, w in enumerate(weights)) == 0
    power = accuracy + 2 * levels
    assert sum(w * Fraction(1, 2**level) ** power for level, w in enumerate(weights)) != 0


def test_textbook_extrapolations() -> None:
    assert richardson_weights(2, 0) == (Fraction(1),)
    assert richardson_weights(2, 1) == (Fraction(-1, 3), Fraction(4, 3))
    assert richardson_weights(2, 2) == (Fraction(1, 45), Fraction(-20, 45), Fraction(64, 45))

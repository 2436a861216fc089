import itertools

import pytest
import sympy
import torch

from pde_train.derivatives import Axes, Jet, Request


def terms(name: str, coordinates: tuple[str, ...]) -> dict[Axes, float]:
    return Request.parse(name, coordinates).terms[name]


@pytest.mark.parametrize(
    ("name", "axes"),
    [("u", ()), ("u_x", (0,)), ("u_y", (1,)), ("u_xx", (0, 0)), ("u_xy", (0, 1)), ("u_xxyy", (0, 0, 1, 1))],
)
def test_a_name_is_one_partial_derivative_of_weight_one(name: str, axes: tuple[int, ...]) -> None:
    assert terms(name, ("x", "y")) == {axes: 1}


@pytest.mark.parametrize("letters", ["xxy", "xxyz", "zyx", "tx"])
def test_the_order_of_letters_is_irrelevant(letters: str) -> None:
    coordinates = ("x", "y", "z", "t")
    found = [terms(f"u_{''.join(order)}", coordinates) for order in itertools.permutations(letters)]
    assert found == [{tuple(sorted(coordinates.index(c) for c in letters)): 1}] * len(found)


def test_coordinate_indices_follow_the_order_of_the_coordinates() -> None:
    assert terms("u_x", ("x", "t")) == {(0,): 1}
    assert terms("u_x", ("t", "x")) == {(1,): 1}
    assert terms("u_xt", ("t", "x")) == {(0, 1): 1}


def test_lap_u_is_the_sum_of_second_derivatives() -> None:
    assert terms("lap_u", ("x",)) == {(0, 0): 1}
    assert terms("lap_u", ("x", "y", "z")) == {(0, 0): 1, (1, 1): 1, (2, 2): 1}


def test_bih_u_counts_the_mixed_term_twice() -> None:
    assert terms("bih_u", ("x",)) == {(0, 0, 0, 0): 1}
    assert terms("bih_u", ("x", "y")) == {(0, 0, 0, 0): 1, (0, 0, 1, 1): 2, (1, 1, 1, 1): 1}


@pytest.mark.parametrize("dimension", [1, 2, 3, 4])
def test_bih_u_is_the_square_of_lap_u(dimension: int) -> None:
    # On exp(k . x) a derivative along axis i is multiplication by k_i: bih_u must be (sum k_i^2)^2.
    coordinates = ("x", "y", "z", "w")[:dimension]
    k = sympy.symbols(coordinates)
    symbols = {
        name: sum(c * sympy.prod(k[i] for i in axes) for axes, c in terms(name, coordinates).items())
        for name in ("lap_u", "bih_u")
    }
    assert sympy.expand(symbols["bih_u"] - symbols["lap_u"] ** 2) == 0


def test_coordinates_may_be_numbered() -> None:
    coordinates = tuple(f"x{i}" for i in range(1, 13))
    assert terms("u_x1x12", coordinates) == {(0, 11): 1}
    assert terms("u_x12x1x1", coordinates) == {(0, 0, 11): 1}
    assert terms("lap_u", coordinates) == {(i, i): 1 for i in range(12)}
    with pytest.raises(ValueError, match=r"'u_x13' names no .* coordinates x1, x2, x3, \.\.\., x12: exp"):
        Request.parse("u_x13", coordinates)
    with pytest.raises(ValueError, match="'u_x' names no derivative"):
        Request.parse("u_x", coordinates)


@pytest.mark.parametrize("coordinates", [("x", "y", "t"), ("t", "x", "y"), ("x", "t", "y")])
def test_time_is_left_out_of_lap_u_and_bih_u(coordinates: tuple[str, str, str]) -> None:
    x, y = coordinates.index("x"), coordinates.index("y")
    assert terms("lap_u", coordinates) == {(x, x): 1, (y, y): 1}
    assert terms("bih_u", coordinates) == {(x,) * 4: 1, (x, x, y, y): 2, (y,) * 4: 1}


def test_parsing_splits_at_blanks_and_forgets_repetition() -> None:
    request = Request.parse("  u u_xx   u ", ("x",))
    assert request.names == {"u", "u_xx"}
    assert request.terms == {"u": {(): 1}, "u_xx": {(0, 0): 1}}


def test_fusing_requests_unites_their_names_and_axes() -> None:
    coordinates = ("x", "y")
    first, second = Request.parse("u lap_u", coordinates), Request.parse("u_xx u_xy", coordinates)
    assert (first | second) == Request.parse("u lap_u u_xx u_xy", coordinates)
    assert (first | second) == (second | first)
    assert (first | second).axes == {(), (0, 0), (1, 1), (0, 1)}
    assert (first | first) == first


@pytest.mark.parametrize(
    ("names", "order"), [("u", 0), ("u u_x", 1), ("lap_u", 2), ("u_xxy u", 3), ("bih_u u_x", 4), ("u_xxxxx", 5)]
)
def test_order_is_the_highest_order_that_is_needed(names: str, order: int) -> None:
    assert Request.parse(names, ("x", "y")).order == order


@pytest.mark.parametrize("name", ["u_z", "v", "u_", "u_x_x", "lap", "bih", "U", "lap_v", "ux", "u_xz", "grad_u", "u_X"])
def test_an_unknown_name_is_refused_with_what_is_known(name: str) -> None:
    with pytest.raises(ValueError, match=rf"'{name}' names no derivative over the coordinates x, y: expected u, u_x, "):
        Request.parse(f"u {name}", ("x", "y"))


def test_time_letters_need_a_time_coordinate() -> None:
    with pytest.raises(ValueError, match=r"'u_t' names no derivative over the coordinates x:"):
        Request.parse("u_t", ("x",))


@pytest.mark.parametrize("name", ["lap_v", "bih_v"])
def test_a_sum_over_no_spatial_coordinate_is_refused(name: str) -> None:
    """An empty sum is no derivative, and differentiators take at least one of each name."""
    sentence = rf"'{name}' names no derivative over the coordinates t: expected v, v_t, v_tt, ..., as lap_v and bih_v"
    with pytest.raises(ValueError, match=rf"{sentence} leave out t"):
        Request.parse(f"v_t {name}", ("t",), ("v",))
    assert Request.parse("v_t v_tt", ("t",), ("v",)).order == 2


def test_a_jet_gives_its_columns_by_name() -> None:
    columns = {"x": torch.ones(3, 1), "u": torch.zeros(3, 2), "lap_u": torch.full((3, 2), 5.0)}
    jet = Jet(columns)
    assert all(getattr(jet, name) is column for name, column in columns.items())
    assert dict(jet.columns) == columns


def test_an_unknown_column_is_named_with_those_that_exist() -> None:
    jet = Jet({"x": torch.ones(1, 1), "u": torch.ones(1, 1)})
    with pytest.raises(AttributeError, match=r"this jet has no 'u_xx', only u, x: add it to needs= in @on"):
        jet.u_xx  # noqa: B018


@pytest.mark.parametrize("name", ["u", "u_xx", "_columns"])
def test_a_jet_is_read_only(name: str) -> None:
    u = torch.ones(1, 1)
    jet = Jet({"u": u})
    with pytest.raises(AttributeError, match="a jet is read-only"):
        setattr(jet, name, torch.zeros(1, 1))
    assert jet.u is u


def test_changing_the_given_or_returned_dict_leaves_the_jet_alone() -> None:
    given = {"u": torch.ones(1, 1)}
    jet = Jet(given)
    given["v"] = torch.zeros(1, 1)
    jet.columns["w"] = torch.zeros(1, 1)  # type: ignore[index]  # which its type forbids as well
    assert set(jet.columns) == {"u"}


def test_sums_of_unknowns_whose_name_begins_the_word() -> None:
    """`lap_l` is a sum of derivatives of l, and no derivative of l over `ap_l`."""
    both = Request.parse("lap_l bih_b l_x", ("x", "y"), ("l", "b"))
    assert both.terms["lap_l"] == {(0, 0): 1, (1, 1): 1}
    assert both.terms["bih_b"] == Request.parse("bih_u", ("x", "y")).terms["bih_u"]
    assert both.terms["l_x"] == {(0,): 1}

import numpy as np
import pytest
import torch

from pde_train.errors import UsageError
from pde_train.geometry import Batch, Box, faces_of
from pde_train.samplers.base import Sampler
from pde_train.samplers.grid import Grid
from pde_train.samplers.latin_hypercube import LatinHypercube
from pde_train.samplers.residual_based import ResidualBased
from pde_train.samplers.sobol import Sobol
from pde_train.samplers.uniform import Uniform

SAMPLERS = (Grid, LatinHypercube, ResidualBased, Sobol, Uniform)
RANDOM = (LatinHypercube, ResidualBased, Sobol, Uniform)
BOXES = {1: Box((-1.0,), (3.0,)), 2: Box((-1.0, 2.0), (3.0, 2.5)), 3: Box((0.0, -2.0, 1.0), (1.0, 2.0, 4.0))}
COUNTS = {1: (16, 2), 2: (16, 16), 3: (64, 24)}
"""Points of the interior and of the boundary that every sampler can give, by dimension."""

every_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.__name__)
every_random = pytest.mark.parametrize("sampler", RANDOM, ids=lambda s: s.__name__)
every_dimension = pytest.mark.parametrize("dimension", BOXES)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def drawn(sampler: type[Sampler], dimension: int, from_generator: np.random.Generator | None = None) -> Batch:
    return sampler(*COUNTS[dimension]).draw(BOXES[dimension], from_generator or generator())


def equal(one: Batch, other: Batch) -> bool:
    return all(torch.equal(one[region].x, other[region].x) for region in ("interior", "boundary"))


@every_sampler
@every_dimension
def test_points_lie_in_the_box_in_the_right_number(sampler: type[Sampler], dimension: int) -> None:
    batch, box = drawn(sampler, dimension), BOXES[dimension]
    inside, boundary = COUNTS[dimension]
    assert set(batch) == {"interior", "boundary"}
    assert batch["interior"].x.shape == (inside, dimension)
    assert batch["boundary"].x.shape == batch["boundary"].normals.shape == (boundary, dimension)
    assert batch["interior"].normals is None
    for points in batch.values():
        assert points.x.dtype == torch.float64
        x = points.x.numpy()
        assert ((x >= box.lower) & (x <= box.upper)).all()


@every_sampler
@every_dimension
def test_every_face_has_its_share_with_outward_unit_normals(sampler: type[Sampler], dimension: int) -> None:
    boundary, box = drawn(sampler, dimension)["boundary"], BOXES[dimension]
    share = COUNTS[dimension][1] // (2 * dimension)
    for axis in range(dimension):
        for side, end in ((-1, box.lower[axis]), (1, box.upper[axis])):
            normal = torch.zeros(dimension, dtype=torch.float64)
            normal[axis] = side
            on_face = (boundary.normals == normal).all(dim=1)
            assert int(on_face.sum()) == share
            # the coordinate of a face is exactly the end of the box, with no rounding
            assert (boundary.x[on_face, axis] == end).all()


@every_sampler
@pytest.mark.parametrize("boundary", [1, 2, 80])
def test_an_interval_has_two_ends_whatever_number_is_asked_for(sampler: type[Sampler], boundary: int) -> None:
    points = sampler(10, boundary).draw(BOXES[1], generator())["boundary"]
    assert points.x.tolist() == [[-1.0], [3.0]]
    assert points.normals.tolist() == [[-1.0], [1.0]]


@every_random
@every_dimension
def test_points_fill_the_box(sampler: type[Sampler], dimension: int) -> None:
    box = BOXES[dimension]
    x = sampler(256, COUNTS[dimension][1]).draw(box, generator())["interior"].x.numpy()
    unit = (x - box.lower) / box.lengths
    # the mean of 256 uniform points has a standard deviation of 0.018, and eighths hold 32 +- 5.3 of them
    assert np.abs(unit.mean(axis=0) - 0.5).max() < 0.07
    counts = [np.histogram(column, 8, (0, 1))[0] for column in unit.T]
    assert np.min(counts) >= 12
    assert len(np.unique(x, axis=0)) == 256


@every_sampler
@every_dimension
def test_the_same_seed_gives_the_same_points(sampler: type[Sampler], dimension: int) -> None:
    assert equal(drawn(sampler, dimension, generator(7)), drawn(sampler, dimension, generator(7)))


@every_random
@every_dimension
def test_another_seed_gives_other_points(sampler: type[Sampler], dimension: int) -> None:
    assert not equal(drawn(sampler, dimension, generator(7)), drawn(sampler, dimension, generator(8)))


@every_random
def test_a_generator_gives_other_points_at_each_draw(sampler: type[Sampler]) -> None:
    shared = generator()
    assert not equal(drawn(sampler, 2, shared), drawn(sampler, 2, shared))


@every_sampler
@pytest.mark.parametrize("earlier", [0, 1, 3])
def test_the_state_of_the_generator_alone_decides_the_points(sampler: type[Sampler], earlier: int) -> None:
    # what a checkpoint keeps is `bit_generator.state`: points must follow from it, however many draws went before
    first = generator()
    for _ in range(earlier):
        drawn(sampler, 2, first)
    state = first.bit_generator.state
    expected = drawn(sampler, 2, first)
    other = generator(99)
    other.bit_generator.state = state
    assert equal(drawn(sampler, 2, other), expected)


@every_sampler
def test_drawing_leaves_the_global_generators_alone(sampler: type[Sampler]) -> None:
    np.random.seed(0)
    before = np.random.get_state(legacy=False)["state"]["key"].copy(), torch.get_rng_state()
    drawn(sampler, 2)
    assert (np.random.get_state(legacy=False)["state"]["key"] == before[0]).all()
    assert torch.equal(torch.get_rng_state(), before[1])


# --- Regions


@every_sampler
def test_regions_of_an_evolution_lie_on_their_faces(sampler: type[Sampler]) -> None:
    box, coordinates = BOXES[2], ("x", "t")
    regions = {r: faces_of(r, coordinates) for r in ("boundary", "initial", "periodic", "x_upper")}
    batch = sampler(16, 8, initial=5).draw(box, generator(), regions)
    assert list(batch) == ["interior", *regions]
    assert {region: len(points.x) for region, points in batch.items()} == {
        "interior": 16,
        "boundary": 8,
        "initial": 5,
        "periodic": 8,
        "x_upper": 8,
    }
    assert batch["boundary"].x[:, 0].tolist() == [-1.0] * 4 + [3.0] * 4
    assert batch["boundary"].normals.tolist() == [[-1.0, 0.0]] * 4 + [[1.0, 0.0]] * 4
    assert batch["initial"].x[:, 1].tolist() == [2.0] * 5
    assert batch["initial"].normals.tolist() == [[0.0, -1.0]] * 5
    assert batch["x_upper"].x[:, 0].tolist() == [3.0] * 8
    for points in batch.values():
        assert ((points.x.numpy() >= box.lower) & (points.x.numpy() <= box.upper)).all()


@every_sampler
def test_points_of_a_periodic_region_know_those_across(sampler: type[Sampler]) -> None:
    box = BOXES[3]
    batch = sampler(64, 8, initial=4).draw(box, generator(), {"periodic": faces_of("periodic", ("x", "t", "y"))})
    points = batch["periodic"]
    assert points.across is not None
    assert points.x.shape == points.across.shape == (8, 3)
    for rows, axis in ((slice(0, 4), 0), (slice(4, 8), 2)):
        assert (points.x[rows, axis] == box.lower[axis]).all()
        assert (points.across[rows, axis] == box.upper[axis]).all()
        others = [i for i in range(3) if i != axis]
        assert torch.equal(points.x[rows][:, others], points.across[rows][:, others])
    part = points.rows(2, 5).to(dtype=torch.float32, device="cpu")
    assert part.across is not None
    assert torch.equal(part.across, points.across[2:5].float())
    assert batch["interior"].across is None


@every_sampler
def test_another_region_leaves_the_points_of_those_before_it_alone(sampler: type[Sampler]) -> None:
    box, regions = BOXES[2], {"boundary": BOXES[2].faces()}
    one = sampler(16, 16).draw(box, generator(), regions)
    other = sampler(16, 16, initial=3).draw(box, generator(), regions | {"initial": [(1, -1)]})
    assert equal(one, other)
    assert equal(one, drawn(sampler, 2))


def test_an_end_of_an_interval_is_one_point() -> None:
    batch = Uniform(5, 80).draw(BOXES[1], generator(), {"x_lower": [(0, -1)], "x_upper": [(0, 1)]})
    assert batch["x_lower"].x.tolist() == [[-1.0]]
    assert batch["x_upper"].x.tolist() == [[3.0]]


@every_random
@pytest.mark.parametrize("dimension", [4, 1000])
def test_points_of_many_faces_lie_on_faces_drawn_at_random(sampler: type[Sampler], dimension: int) -> None:
    box = Box((-1.0,) * dimension, (2.0,) * dimension)
    boundary = sampler(10, 100).draw(box, generator())["boundary"]
    x, normals = boundary.x.numpy(), boundary.normals.numpy()
    assert x.shape == normals.shape == (100, dimension)
    assert (np.abs(normals).sum(axis=1) == 1).all()
    assert (x[normals < 0] == -1).all()
    assert (x[normals > 0] == 2).all()
    assert ((x > -1) & (x < 2)).sum() == 100 * (dimension - 1)
    # of 8 faces all are met, of 2000 nearly as many as there are points
    assert len(np.unique(normals, axis=0)) >= min(2 * dimension, 90)


def test_a_grid_on_many_axes_is_refused() -> None:
    box = Box((0.0,) * 1000, (1.0,) * 1000)
    sentence = r"a grid of 400 points on 1000 axes is not square, .*: expected points off a grid, choose sampler"
    with pytest.raises(UsageError, match=sentence):
        Grid(400, 100).draw(box, generator())
    with pytest.raises(UsageError, match=sentence):
        Grid(400, 100).spacing(box)


# --- Grid


@pytest.mark.parametrize("n", [1, 2, 5, 200])
def test_a_grid_of_an_interval_is_linspace(n: int) -> None:
    x = Grid(n, 2).draw(BOXES[1], generator())["interior"].x
    np.testing.assert_array_equal(x.numpy()[:, 0], np.linspace(-1, 3, n))


@pytest.mark.parametrize(("interior", "per_axis"), [(16, (4, 4)), ([3, 5], (3, 5)), ([1, 4], (1, 4)), (1, (1, 1))])
def test_a_grid_of_a_rectangle_is_the_product_of_linspaces(
    interior: int | list[int], per_axis: tuple[int, int]
) -> None:
    box = BOXES[2]
    x = Grid(interior, 8).draw(box, generator())["interior"].x.numpy()
    axes = [np.linspace(low, high, n) for low, high, n in zip(box.lower, box.upper, per_axis, strict=True)]
    np.testing.assert_array_equal(x, [(a, b) for a in axes[0] for b in axes[1]])


def test_a_grid_has_both_ends_of_every_axis() -> None:
    box = BOXES[3]
    x = Grid(27, 24).draw(box, generator())["interior"].x
    assert tuple(x.min(dim=0).values.tolist()) == box.lower
    assert tuple(x.max(dim=0).values.tolist()) == box.upper


def test_the_faces_of_a_grid_are_grids() -> None:
    box = BOXES[2]
    boundary = Grid(16, 20).draw(box, generator())["boundary"]
    left = boundary.x[(boundary.normals == torch.tensor([-1.0, 0.0])).all(dim=1)]
    np.testing.assert_array_equal(left.numpy(), [(-1.0, y) for y in np.linspace(2, 2.5, 5)])


@pytest.mark.parametrize(
    ("count", "dimension", "root"), [(400, 2, 20), (10**6, 3, 100), (125, 3, 5), (7, 1, 7), (10201, 2, 101)]
)
def test_a_perfect_power_is_shared_by_the_axes(count: int, dimension: int, root: int) -> None:
    box = Box((0.0,) * dimension, (1.0,) * dimension)
    assert Grid(count, 8).spacing(box) == (1 / (root - 1),) * dimension


@pytest.mark.parametrize(
    ("count", "dimension", "lower", "upper"), [(1000, 2, 961, 1024), (10, 2, 9, 16), (63, 3, 27, 64), (2, 2, 1, 4)]
)
def test_a_grid_that_is_no_power_is_refused_with_its_neighbours(
    count: int, dimension: int, lower: int, upper: int
) -> None:
    sentence = (
        rf"a grid of {count} points on {dimension} axes is not square: expected {lower}, {upper} or a list of points"
    )
    with pytest.raises(UsageError, match=sentence):
        Grid(count, 24).draw(BOXES[dimension], generator())
    with pytest.raises(UsageError, match=sentence):
        Grid(count, 24).spacing(BOXES[dimension])


@pytest.mark.parametrize("interior", [[4], [4, 4, 4]], ids=str)
def test_a_list_needs_a_number_for_each_axis(interior: list[int]) -> None:
    with pytest.raises(UsageError, match=rf"sampler\.interior=.* has {len(interior)} numbers: expected .* each"):
        Grid(interior, 8).draw(BOXES[2], generator())


# --- Latin hypercube and Sobol


@every_dimension
@pytest.mark.parametrize("n", [1, 7, 50])
def test_a_latin_hypercube_has_one_point_in_each_slice(dimension: int, n: int) -> None:
    box = BOXES[dimension]
    x = LatinHypercube(n, COUNTS[dimension][1]).draw(box, generator())["interior"].x.numpy()
    slices = np.floor((x - box.lower) / box.lengths * n).astype(int)
    assert [sorted(column) for column in slices.T] == [list(range(n))] * dimension


def test_every_face_of_a_latin_hypercube_has_one_point_in_each_slice() -> None:
    boundary = LatinHypercube(5, 40).draw(BOXES[2], generator())["boundary"]
    left = boundary.x[(boundary.normals == torch.tensor([-1.0, 0.0])).all(dim=1), 1].numpy()
    assert sorted(np.floor((left - 2) / 0.5 * 10).astype(int)) == list(range(10))


@every_dimension
@pytest.mark.parametrize("n", [2, 16, 64])
def test_sobol_points_are_balanced_for_powers_of_two(dimension: int, n: int) -> None:
    box = BOXES[dimension]
    x = Sobol(n, COUNTS[dimension][1]).draw(box, generator())["interior"].x.numpy()
    unit = (x - box.lower) / box.lengths
    # a scrambled (t, m, s)-net has one point in each of n slices along every axis
    assert [sorted(np.floor(column * n).astype(int)) for column in unit.T] == [list(range(n))] * dimension
    if dimension == 2:
        # and in two dimensions, where t = 0, one in every box of area 1 / n
        for k in range(n.bit_length()):
            cells = np.floor(unit * [2**k, n // 2**k]).astype(int)
            assert len({tuple(cell) for cell in cells}) == n


@pytest.mark.parametrize("n", [1, 3, 100])
def test_sobol_points_come_in_any_number_without_a_warning(n: int) -> None:
    assert Sobol(n, 8).draw(BOXES[2], generator())["interior"].x.shape == (n, 2)


# --- Counts and spacing


@every_random
def test_a_list_of_counts_is_for_grids(sampler: type[Sampler]) -> None:
    with pytest.raises(UsageError, match="is for a grid: expected one number, 20 in all"):
        sampler([4, 5], 8).draw(BOXES[2], generator())


def test_the_spacing_of_a_grid_is_the_distance_of_its_points() -> None:
    box = BOXES[2]
    assert Grid([5, 6], 8).spacing(box) == pytest.approx((1.0, 0.1))
    x = Grid([5, 6], 8).draw(box, generator())["interior"].x.numpy()
    assert [np.diff(np.unique(column)).max() for column in x.T] == pytest.approx(Grid([5, 6], 8).spacing(box))
    assert Grid(9, 2).spacing(BOXES[1]) == (0.5,)


@every_random
def test_the_spacing_of_other_points_is_that_of_as_many_on_a_grid(sampler: type[Sampler]) -> None:
    # a square root rounds once
    assert sampler(36, 8).spacing(BOXES[2]) == pytest.approx(Grid(36, 8).spacing(BOXES[2]), rel=1e-14)
    assert sampler(9, 2).spacing(BOXES[1]) == pytest.approx((0.5,), rel=1e-14)


@every_sampler
def test_the_spacing_of_one_point_is_the_box(sampler: type[Sampler]) -> None:
    assert sampler(1, 4).spacing(BOXES[2]) == (4.0, 0.5)


@every_sampler
@pytest.mark.parametrize("count", [0, -3])
@pytest.mark.parametrize("name", ["interior", "boundary", "initial"])
def test_counts_must_be_positive(sampler: type[Sampler], name: str, count: int) -> None:
    with pytest.raises(UsageError, match=rf"sampler\.{name}={count} leaves no point: expected a positive number"):
        sampler(**({"interior": 16, "boundary": 16} | {name: count}))


@every_sampler
@pytest.mark.parametrize("interior", [[0, 5], [5, -1], []], ids=str)
def test_every_count_of_a_list_must_be_positive(sampler: type[Sampler], interior: list[int]) -> None:
    with pytest.raises(UsageError, match=r"sampler\.interior=\[.*\] leaves no point: expected a positive number"):
        sampler(interior, 8)


@every_sampler
@pytest.mark.parametrize(("boundary", "dimension", "remedy"), [(10, 2, 8), (3, 2, 4), (25, 3, 24)])
def test_a_boundary_that_the_faces_cannot_share_is_refused(
    sampler: type[Sampler], boundary: int, dimension: int, remedy: int
) -> None:
    faces = 2 * dimension
    sentence = (
        rf"sampler\.boundary={boundary} cannot be shared by {faces} faces: .* multiple of {faces}, such as {remedy}"
    )
    with pytest.raises(UsageError, match=sentence):
        sampler(64, boundary).draw(BOXES[dimension], generator())


@every_sampler
def test_a_negative_interval_of_resampling_is_refused(sampler: type[Sampler]) -> None:
    with pytest.raises(UsageError, match=r"sampler\.resample_every=-1 is no number of steps: expected an integer"):
        sampler(16, 8, resample_every=-1)


def test_other_points_are_not_asked_of_a_grid() -> None:
    with pytest.raises(UsageError, match=r"resample_every=5 asks for other points, and Grid has the same ones"):
        Grid(16, 8, resample_every=5)


# --- Points and boxes


def test_points_move_with_their_normals() -> None:
    boundary = drawn(Uniform, 2)["boundary"]
    moved = boundary.to(dtype=torch.float32, device="cpu")
    assert moved.x.dtype == moved.normals.dtype == torch.float32
    assert torch.equal(moved.x, boundary.x.float())
    assert drawn(Uniform, 2)["interior"].to(dtype=torch.float32, device="cpu").normals is None


def test_rows_are_taken_with_their_normals() -> None:
    boundary = drawn(Uniform, 2)["boundary"]
    part = boundary.rows(3, 6)
    assert torch.equal(part.x, boundary.x[3:6])
    assert part.normals is not None
    assert boundary.normals is not None
    assert torch.equal(part.normals, boundary.normals[3:6])
    assert drawn(Uniform, 2)["interior"].rows(0, 2).x.shape == (2, 2)


def test_regions_are_made_of_faces() -> None:
    evolution, space = ("x", "t", "y"), ("x1", "x2")
    assert faces_of("interior", evolution) == []
    assert faces_of("boundary", evolution) == [(0, -1), (0, 1), (2, -1), (2, 1)]
    assert faces_of("initial", evolution) == faces_of("t_lower", evolution) == [(1, -1)]
    assert faces_of("periodic", evolution) == [(0, -1), (2, -1)]
    assert faces_of("y_upper", evolution) == [(2, 1)]
    assert faces_of("x2_lower", space) == [(1, -1)]
    assert faces_of("boundary", space) == Box((0.0, 0.0), (1.0, 1.0)).faces()


@pytest.mark.parametrize(
    ("region", "coordinates"),
    [
        ("initial", ("x", "y")),
        ("boundry", ("x",)),
        ("y_lower", ("x",)),
        ("x_left", ("x",)),
        ("boundary", ("t",)),
        ("periodic", ("t",)),
    ],
)
def test_an_unknown_region_is_refused_with_what_is_known(region: str, coordinates: tuple[str, ...]) -> None:
    with pytest.raises(
        UsageError, match=rf"'{region}' is no region of this PDE: expected interior, .* {coordinates[0]}_lower, .* @on"
    ):
        faces_of(region, coordinates)


def test_a_box_knows_its_faces() -> None:
    box = BOXES[3]
    assert box.dimension == 3
    assert box.lengths.tolist() == [1, 4, 3]
    assert box.faces() == [(0, -1), (0, 1), (1, -1), (1, 1), (2, -1), (2, 1)]
    assert box.across(1) == Box((0.0, 1.0), (1.0, 4.0))
    np.testing.assert_array_equal(box.place(np.array([[0.0, 0.5, 1.0]])), [[0, 0, 4]])

"""Domains: which points they contain, lengths, areas and normals of their boundaries, and training on them."""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import shapely
import torch
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.diagnostics.none import NoDiagnostics
from pde_train.differentiators.taylor import Taylor
from pde_train.domains import Away, Ball, Difference, Disc, InTime, Pinned, Polygon, Union
from pde_train.entropy import Entropy
from pde_train.errors import UsageError
from pde_train.geometry import Box, Domain, Points
from pde_train.methods.least_squares import LeastSquares
from pde_train.models.random_features import RandomFeatures
from pde_train.pdes.base import PDE, on
from pde_train.problem import Problem
from pde_train.runs import figures
from pde_train.samplers.base import Sampler
from pde_train.samplers.grid import Grid
from pde_train.samplers.latin_hypercube import LatinHypercube
from pde_train.samplers.residual_based import ResidualBased
from pde_train.samplers.sobol import Sobol
from pde_train.samplers.uniform import Uniform
from pde_train.tracking.none import NoTracker
from pde_train.tracking.record import Record

SQUARE = Box((-1.0, -1.0), (1.0, 1.0))
L_SHAPE = Difference(SQUARE, {"step": Box((0.0, 0.0), (1.0, 1.0))})
CHANNEL = Difference(Box((0.0, 0.0), (2.0, 1.0)), {"cylinder": Disc((0.5, 0.5), 0.2), "bump": Disc((1.5, 0.0), 0.3)})
RING = Difference(Disc((1.0, 0.0), 2.0), {"inner": Disc((1.0, 0.0), 0.5)})
STAR = Polygon([(0, 0), (2, 0), (2, 1), (1, 0.4), (0.3, 1.5)])
ROW = Union({"left": Box((0.0, 0.0), (2.0, 1.0)), "right": Box((1.0, 0.0), (3.0, 1.0))})
NOTCHED = Difference(
    SQUARE,
    {"left": Box((-0.5, -1.0), (0.1, 0.0)), "right": Box((-0.1, -1.0), (0.5, 0.0)), "beside": Box((1.0, -1.0), (2, 1))},
)
KEYHOLE = Union({"head": Disc((0.0, 1.0), 0.6), "slot": Box((-0.2, -0.5), (0.2, 1.0))})


def disc(x: float, y: float, radius: float) -> shapely.Geometry:
    return shapely.Point(x, y).buffer(radius, quad_segs=4096)


SHAPES: dict[str, tuple[Domain, shapely.Geometry]] = {
    "disc": (Disc((1.0, -2.0), 1.5), disc(1, -2, 1.5)),
    "ring": (RING, disc(1, 0, 2).difference(disc(1, 0, 0.5))),
    "polygon": (STAR, shapely.Polygon(STAR.corners)),
    "turned polygon": (Polygon(list(STAR.corners)[::-1]), shapely.Polygon(STAR.corners)),
    "l": (L_SHAPE, shapely.box(-1, -1, 1, 1).difference(shapely.box(0, 0, 1, 1))),
    "channel": (CHANNEL, shapely.box(0, 0, 2, 1).difference(disc(0.5, 0.5, 0.2)).difference(disc(1.5, 0, 0.3))),
    "keyhole": (KEYHOLE, disc(0, 1, 0.6).union(shapely.box(-0.2, -0.5, 0.2, 1))),
    "row": (ROW, shapely.box(0, 0, 3, 1)),
    "notched": (NOTCHED, shapely.box(-1, -1, 1, 1).difference(shapely.box(-0.5, -1, 0.5, 0))),
}
SAMPLERS: dict[str, Sampler] = {
    "uniform": Uniform(4000, 3000),
    "sobol": Sobol(4000, 3000),
    "latin_hypercube": LatinHypercube(4000, 3000),
    "grid": Grid(90**2, 3000),
}
every_shape = pytest.mark.parametrize("name", SHAPES)


def normals_of(points: Points) -> Tensor:
    assert points.normals is not None
    return points.normals


@every_shape
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_areas_lengths_and_normals_agree_with_shapely(name: str, sampler: str) -> None:
    """By Gauss, the mean of x . n over the boundary times its length is twice the area, and the mean of n is 0."""
    domain, shape = SHAPES[name]
    regions = {"boundary": domain.region("boundary", ("x", "y"))}
    batch = SAMPLERS[sampler].draw(domain, np.random.default_rng(0), regions)
    inside, on = batch["interior"].x.numpy(), batch["boundary"].x.numpy()
    normals = normals_of(batch["boundary"]).numpy()
    assert np.allclose(np.linalg.norm(normals, axis=1), 1, rtol=0, atol=1e-14)
    assert shapely.intersects_xy(shape.buffer(1e-6), inside[:, 0], inside[:, 1]).all()
    distances = shapely.distance(shape.boundary, shapely.points(on))
    assert distances.max() < 1e-6  # the polygon of a disc has 16384 corners
    length = sum(part.share() for part in regions["boundary"])
    assert length == pytest.approx(shape.length, rel=2e-3)
    noise = 5 / len(on) ** 0.5 if sampler == "uniform" else 0.02
    size = float(np.abs(on).max()) * length
    assert length * (on * normals).sum(axis=1).mean() == pytest.approx(2 * shape.area, abs=noise * size)
    assert np.abs(normals.mean(axis=0)).max() < noise
    box = shape.bounds
    share = np.mean(domain.contains(np.random.default_rng(1).uniform(box[:2], box[2:], (40000, 2))))
    assert share * (box[2] - box[0]) * (box[3] - box[1]) == pytest.approx(shape.area, rel=0.03)


@every_shape
def test_points_are_uniform_in_the_domain_and_along_its_boundary(name: str) -> None:
    domain, shape = SHAPES[name]
    batch = Uniform(20000, 20000).draw(
        domain, np.random.default_rng(0), {"boundary": domain.region("boundary", ("x", "y"))}
    )
    centre, edge = shape.centroid, shape.boundary
    for points, whole in ((batch["interior"], shape), (batch["boundary"], edge)):
        for half in (shapely.box(-9, -9, centre.x, 9), shapely.box(-9, -9, 9, centre.y)):
            part = whole.intersection(half)
            expected = part.area / whole.area if whole is shape else part.length / whole.length
            found = shapely.intersects_xy(half, points.x[:, 0].numpy(), points.x[:, 1].numpy()).mean()
            assert found == pytest.approx(expected, abs=0.02)


def test_what_pieces_of_a_boundary_share_belongs_to_the_first_one() -> None:
    """Left of x = 2 the lower side of the row is that of its left box, whose upper side in x is inside."""
    lengths = {name: part.share() for name, part in ROW.parts("xy").items()}
    assert lengths["left_y_lower"] == lengths["left_y_upper"] == 2
    assert lengths["right_y_lower"] == lengths["right_y_upper"] == 1
    assert lengths["left_x_upper"] == lengths["right_x_lower"] == 0
    lengths = {name: part.share() for name, part in NOTCHED.parts("xy").items()}
    assert [lengths["x_upper"], lengths["beside_x_lower"]] == [2, 0]
    assert lengths["left_y_upper"] == pytest.approx(0.6)
    assert lengths["right_y_upper"] == pytest.approx(0.4, rel=1e-3)
    ends = Union({"left": Box((0.0,), (2.0,)), "right": Box((1.0,), (3.0,)), "again": Box((0.0,), (1.0,))})
    batch = Uniform(9, 9).draw(ends, np.random.default_rng(0), {"boundary": ends.region("boundary", "x")})
    assert batch["boundary"].x.tolist() == [[0.0], [3.0]]


def test_a_ball_and_its_sphere() -> None:
    ball = Ball((1.0, 2.0, 3.0), 2.0)
    batch = Uniform(20000, 20000).draw(ball, np.random.default_rng(0), {"boundary": ball.region("boundary", "xyz")})
    for points, moment in ((batch["interior"].x, 3 / 5), (batch["boundary"].x, 1.0)):  # the mean of r^2 / R^2
        offsets = points.numpy() - ball.center
        assert np.abs(offsets.mean(axis=0)).max() < 0.05
        assert (offsets**2).sum(axis=1).mean() / 4 == pytest.approx(moment, abs=0.02)
        assert (offsets**2).mean(axis=0) == pytest.approx([4 * moment / 3] * 3, rel=0.05)
    on = batch["boundary"]
    assert torch.allclose(on.x - torch.tensor(ball.center), 2 * normals_of(on), rtol=0, atol=1e-14)
    assert ball.parts("xyz")["sphere"].share() == pytest.approx(16 * math.pi)


@pytest.mark.parametrize("sampler", ["uniform", "sobol", "latin_hypercube"])
@pytest.mark.parametrize("dimension", [1, 2, 4, 7, 100])
def test_a_ball_in_any_dimension_is_filled_evenly(dimension: int, sampler: str) -> None:
    """r^d is uniform; each coordinate has the variance R^2 / (d + 2) inside, R^2 / d on the sphere, and no mean."""
    center = np.arange(dimension) / 10
    ball = Ball(tuple(center), 2.0)
    coordinates = [f"x{i}" for i in range(dimension)]
    batch = SAMPLERS[sampler].draw(ball, np.random.default_rng(0), {"boundary": ball.region("boundary", coordinates)})
    assert batch["interior"].x.shape == (4000, dimension)
    assert ball.contains(batch["interior"].x.numpy()).all()
    radii = np.linalg.norm(batch["interior"].x.numpy() - center, axis=1) / 2
    assert np.histogram(radii**dimension, 4, (0, 1))[0] == pytest.approx([1000] * 4, abs=120)
    for points, expected in ((batch["interior"].x, dimension + 2), (batch["boundary"].x, dimension)):
        offsets = (points.numpy() - center) / 2
        assert np.abs(offsets.mean(axis=0)).max() < 4 / (len(offsets) * expected) ** 0.5
        assert (offsets**2).mean() == pytest.approx(1 / expected, rel=0.05)
    assert torch.allclose(batch["boundary"].x - torch.from_numpy(center), 2 * normals_of(batch["boundary"]))


@pytest.mark.parametrize("dimension", [1, 2, 3, 4, 10, 1000])
def test_the_area_of_a_sphere_is_that_of_the_recursion(dimension: int) -> None:
    """A_d = 2 pi R^2 / (d - 2) A_(d - 2) from 2 and 2 pi R, in logarithms; smaller than any number for d = 1000."""
    areas = {1: math.log(2), 2: math.log(2 * math.pi * 1.5)}
    for d in range(3, dimension + 1):
        areas[d] = math.log(2 * math.pi * 1.5**2 / (d - 2)) + areas[d - 2]
    sphere = Ball((0.0,) * dimension, 1.5).region("sphere", [f"x{i}" for i in range(dimension)])
    assert math.log(sum(part.share() for part in sphere)) == pytest.approx(
        max(areas[dimension], math.log(sys.float_info.min)), rel=1e-12
    )


def test_a_ball_of_many_dimensions_in_time_has_points() -> None:
    domain = InTime(Ball((0.0,) * 20, 1.0), 0.0, 2.0)
    names = (*(f"x{i}" for i in range(20)), "t")
    batch = Uniform(500, 100, initial=100).draw(
        domain, np.random.default_rng(0), {name: domain.region(name, names) for name in ("boundary", "initial")}
    )
    assert domain.contains(batch["interior"].x.numpy()).all()
    assert domain.contains(batch["initial"].x.numpy()).all()
    assert bool((batch["initial"].x[:, -1] == 0).all())
    assert torch.allclose(torch.linalg.vector_norm(batch["boundary"].x[:, :-1], dim=1), torch.ones(100).double())


def test_pieces_have_the_names_of_what_they_belong_to() -> None:
    assert set(CHANNEL.parts("xy")) == {"x_lower", "x_upper", "y_lower", "y_upper", "cylinder", "bump"}
    lengths = {name: part.share() for name, part in CHANNEL.parts("xy").items()}
    assert lengths["cylinder"] == pytest.approx(2 * math.pi * 0.2)
    assert lengths["bump"] == pytest.approx(math.pi * 0.3, rel=1e-3)
    assert lengths["y_lower"] == pytest.approx(2 - 0.6, rel=1e-3)
    steps = {name: part.share() for name, part in L_SHAPE.parts("xy").items()}
    assert [name for name, length in steps.items() if length == 0] == ["step_x_upper", "step_y_upper"]
    assert steps["step_x_lower"] == steps["step_y_lower"] == 1
    assert sum(part.share() for part in L_SHAPE.region("step", "xy")) == 2
    hole = Uniform(5, 200).draw(CHANNEL, np.random.default_rng(0), {"cylinder": CHANNEL.region("cylinder", "xy")})
    offset = hole["cylinder"].x - torch.tensor([0.5, 0.5])
    assert torch.allclose(normals_of(hole["cylinder"]), -offset / 0.2, rtol=0, atol=1e-12)  # out of the domain


def test_a_domain_in_time_has_its_pieces_at_all_times_and_starts_everywhere() -> None:
    domain = InTime(CHANNEL, 1.0, 3.0)
    names = ("x", "y", "t")
    assert domain.lower == (0.0, 0.0, 1.0)
    assert set(domain.parts(names)) == {*CHANNEL.parts("xy"), "initial"}
    regions = {name: domain.region(name, names) for name in ("boundary", "cylinder", "initial")}
    batch = Uniform(2000, 2000, initial=300).draw(domain, np.random.default_rng(0), regions)
    assert CHANNEL.contains(batch["interior"].x[:, :2].numpy()).all()
    assert float(batch["interior"].x[:, 2].mean()) == pytest.approx(2, abs=0.1)
    first = batch["initial"]
    assert first.x.shape == (300, 3)
    assert bool((first.x[:, 2] == 1).all())
    assert CHANNEL.contains(first.x[:, :2].numpy()).all()
    for name in ("boundary", "cylinder"):
        assert bool((normals_of(batch[name])[:, 2] == 0).all())
        assert {round(float(t)) for t in batch[name].x[:, 2]} == {1, 2, 3}
    radii = torch.linalg.vector_norm(batch["cylinder"].x[:, :2] - 0.5, dim=1)
    assert torch.allclose(radii, torch.full_like(radii, 0.2), rtol=1e-12, atol=0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_points_near_corners_are_left_out_and_no_piece_is_added(sampler: str) -> None:
    corners = [(0.0, 0.0), (-1.0, 1.0)]
    domain = Away(L_SHAPE, corners, 0.25)
    assert set(domain.parts("xy")) == set(L_SHAPE.parts("xy"))
    assert domain.parts("xy")["step_x_lower"].share() == pytest.approx(0.75, rel=1e-3)
    assert domain.parts("xy")["x_upper"].share() == L_SHAPE.parts("xy")["x_upper"].share()
    batch = SAMPLERS[sampler].draw(
        domain, np.random.default_rng(0), {"boundary": domain.region("boundary", ("x", "y"))}
    )
    for points in batch.values():
        distances = [np.linalg.norm(points.x.numpy() - corner, axis=1).min() for corner in corners]
        assert 0.25 <= min(distances) < 0.3
    assert len(batch["boundary"].x) == pytest.approx(3000, rel=0.01)
    assert sum(part.share() for part in domain.region("boundary", "xy")) == pytest.approx(8 - 4 * 0.25, rel=1e-3)
    square = Away(SQUARE, [(-1.0, 1.0), (1.0, 1.0)], 0.25)  # a grid of two points on its upper side has no other
    few = type(SAMPLERS[sampler])(100, 2).draw(square, np.random.default_rng(0), {"e": square.region("y_upper", "xy")})
    assert len(few["e"].x) >= 1
    assert InTime(domain, 0.0, 1.0).contains(np.array([[0.0, 0.0, 0.5], [-0.5, 0.0, 0.5]])).tolist() == [False, True]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_pinned_point_is_a_region_of_one_point_and_no_boundary(sampler: str) -> None:
    domain = Pinned(CHANNEL, {"origin": (0.0, 0.0)})
    regions = {name: domain.region(name, ("x", "y")) for name in ("boundary", "origin")}
    batch = SAMPLERS[sampler].draw(domain, np.random.default_rng(0), regions)
    assert batch["origin"].x.tolist() == [[0.0, 0.0]]
    without = {"boundary": CHANNEL.region("boundary", ("x", "y"))}
    expected = SAMPLERS[sampler].draw(CHANNEL, np.random.default_rng(0), without)
    for name, points in expected.items():
        assert torch.equal(batch[name].x, points.x)


@pytest.mark.parametrize("sampler", [Uniform(100, 60), Grid(1000, 60)], ids=lambda s: type(s).__name__)
def test_a_pinned_point_is_a_region_at_all_times(sampler: Sampler) -> None:
    names = ("x", "y", "t")
    domain = InTime(Pinned(CHANNEL, {"origin": (0.0, 0.0)}), 1.0, 3.0)
    assert len(domain.region("boundary", names)) == len(CHANNEL.region("boundary", names[:2]))
    points = sampler.draw(domain, np.random.default_rng(0), {"origin": domain.region("origin", names)})["origin"].x
    assert points.shape == (60, 3)
    assert bool((points[:, :2] == 0).all())
    assert float(points[:, 2].mean()) == pytest.approx(2, abs=0.2)


@dataclass(frozen=True)
class OnDisc(PDE):
    """-lap u = 4 on the unit disc, u = 0 on the circle: u = 1 - x^2 - y^2."""

    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "y")
    domain = Disc((0.0, 0.0), 1.0)

    @on("interior", needs="lap_u")
    def poisson(self, d: Jet) -> Tensor:
        return -d.lap_u - 4

    @on("circle", needs="u")
    def rim(self, d: Jet) -> Tensor:
        return d.u

    def exact(self, d: Jet) -> Tensor:
        return 1 - d.x**2 - d.y**2


@dataclass(frozen=True)
class Flux(OnDisc):
    """The same with its flux u_n = -2 in place of the value, and the value at the centre of gravity of an edge."""

    @on("circle", needs="u_x u_y")
    def rim(self, d: Jet) -> Tensor:
        return d.n_x * d.u_x + d.n_y * d.u_y + 2


@pytest.mark.parametrize(
    "sampler", [Uniform(900, 120), Grid(900, 120), Sobol(900, 120)], ids=lambda s: type(s).__name__
)
def test_least_squares_on_a_disc(sampler: Sampler) -> None:
    problem = Problem(OnDisc(), RandomFeatures(2, 150, "tanh", 1.0, 0), Taylor(), sampler)
    LeastSquares().fit(problem, Record(NoTracker(), Entropy([1e-8])), NoDiagnostics(), Path())
    assert problem.errors()["error_l2"] < 1e-6
    x = problem.test_batch["interior"].x
    assert 7000 < len(x) < 101**2  # pi / 4 of the grid around it
    assert float(torch.linalg.vector_norm(x, dim=1).max()) <= 1
    assert problem.residual_held_out() < 1e-6
    assert figures.solution(problem).axes[0].collections  # scattered points, no image of a square


def test_fluxes_through_a_circle_use_its_normals() -> None:
    problem = Problem(Flux(), RandomFeatures(2, 150, "tanh", 1.0, 0), Taylor(), Uniform(900, 120))
    LeastSquares().fit(problem, Record(NoTracker(), Entropy([1e-8])), NoDiagnostics(), Path())
    x = problem.test_batch["interior"].x
    with torch.no_grad():
        difference = problem.model(x) - problem.exact(x)
    assert float((difference - difference.mean()).abs().max()) < 1e-6  # known up to a constant


def test_points_that_follow_the_residual_stay_in_the_domain() -> None:
    sampler = ResidualBased(50, 20, candidates=200)
    x = sampler.adapted(RING, np.random.default_rng(0), lambda x: x[:, 0] ** 2)
    assert x.shape == (50, 2)
    assert RING.contains(x).all()


def test_the_ends_of_time_of_a_box_that_has_it_are_no_boundary() -> None:
    """Values given at the end would make another problem of an initial one."""
    names = ("x", "y", "t")
    domain = Pinned(Box((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), {"origin": (0.0, 0.0, 0.0)})
    regions = {region: domain.region(region, names) for region in ("boundary", "initial")}
    batch = Uniform(10, 200, initial=30).draw(domain, np.random.default_rng(0), regions)
    assert (normals_of(batch["boundary"])[:, 2] == 0).all()
    assert batch["initial"].x.shape == (30, 3)
    assert (batch["initial"].x[:, 2] == 0).all()


BLOCK = Box((0.25, 0.25), (0.75, 0.75))
CROSSED = Box((-1.0, -1.0), (1.0, 1.0))


@pytest.mark.parametrize(
    ("domain", "length"),
    [
        (Difference(CROSSED, {"hole": BLOCK}), 2 * 2 + 2 * 0.5),
        (Difference(InTime(Box((-1.0,), (1.0,)), -1.0, 1.0), {"hole": InTime(Box((0.25,), (0.75,)), 0.25, 0.75)}), 5),
        (Difference(CROSSED, {"hole": Difference(BLOCK, {"core": Box((0.4, 0.4), (0.6, 0.6))})}), 5 + 2 * 0.2),
        (Union({"low": CROSSED, "high": Box((-1.0, 1.0), (0.5, 2.0))}), 2 * 2 + 2),
        (Polygon([(-1, 0), (1, 0), (2, 1), (-1, 1)]), 1 + math.sqrt(2)),
    ],
    ids=["box", "in time", "nested", "union", "polygon"],
)
def test_faces_across_time_are_no_boundary(domain: Domain, length: float) -> None:
    """The boundary in (x, t) is what has a normal in space, of holes and members, too."""
    parts = domain.region("boundary", ("x", "t"))
    assert sum(part.share() for part in parts) == pytest.approx(length, rel=1e-3)
    batch = Uniform(10, 200).draw(domain, np.random.default_rng(0), {"boundary": parts})
    assert (normals_of(batch["boundary"])[:, 0] != 0).all()


def test_a_point_on_the_boundary_belongs_to_the_domain_up_to_rounding() -> None:
    """A sensor on the wall of a hole, and points of a circle, which rounding puts on either side."""
    batch = Uniform(50, 200).draw(RING, np.random.default_rng(0), {"boundary": RING.region("boundary", "xy")})
    x = batch["boundary"].x.numpy()
    assert not RING.contains(x).all()
    assert RING.covers(x).all()
    assert not RING.covers(np.array([[1.0, 0.0], [1.0, 0.499], [1.0, 2.001]])).any()
    assert set(Pinned(RING, {"stagnation": (0.5, 0.0)}).parts("xy")) == {"circle", "inner", "stagnation"}


def test_a_grid_serves_surfaces_of_any_area() -> None:
    """Shares of 32 and 8 points are no squares: the nearest ones are taken."""
    names, domain = ("x", "y", "t"), InTime(RING, 0.0, 1.0)
    regions = {region: domain.region(region, names) for region in ("boundary", "initial")}
    batch = Grid([9, 9, 4], 40, initial=80).draw(domain, np.random.default_rng(0), regions)
    on = np.linalg.norm(batch["boundary"].x.numpy()[:, :2] - [1, 0], axis=1)
    assert [(on > 1).sum(), (on < 1).sum()] == [36, 9]
    assert domain.contains(batch["initial"].x.numpy()).all()
    assert 50 < len(batch["initial"].x) < 100


@pytest.mark.parametrize("domain", [Disc((1.0, 0.0), 2.0), Ball((1.0, 0.0), 2.0)], ids=lambda d: type(d).__name__)
@pytest.mark.parametrize("n", [1, 2, 3, 20])
def test_a_grid_of_a_circle_has_each_point_once(domain: Domain, n: int) -> None:
    """n equidistant points integrate cos(k phi) and sin(k phi) to rounding for 0 < k < n, and none is there twice."""
    points = Grid(100, n).draw(domain, np.random.default_rng(0), {"boundary": domain.region("boundary", "xy")})
    z = (points["boundary"].x.numpy() - [1, 0]) @ [0.5, 0.5j]
    assert len(z) == len(np.unique(z.round(9))) == n
    assert np.abs([(z**k).mean() for k in range(1, n)]).max(initial=0) < 1e-14  # of n numbers of modulus 1
    assert abs((z**n).mean()) == pytest.approx(1)


def test_a_grid_of_a_sphere_has_each_point_once() -> None:
    """Heights are the middles of k equal intervals, for which the mean of z^2 is (1 - k^-2) / 3."""
    ball, k = Ball((0.0, 0.0, 0.0), 1.0), 10
    points = Grid(1000, k**2).draw(ball, np.random.default_rng(0), {"boundary": ball.region("boundary", "xyz")})
    x = points["boundary"].x.numpy()
    assert len(x) == len(np.unique(x.round(9), axis=0)) == k**2
    expected = [(1 + k**-2 / 2) / 3, (1 + k**-2 / 2) / 3, (1 - k**-2) / 3]
    assert x.T @ x / k**2 == pytest.approx(np.diag(expected), abs=1e-14)  # of 100 terms of at most 1
    assert np.abs(x.mean(axis=0)).max() < 1e-14


def test_a_grid_has_each_point_of_a_closed_piece_once_at_all_times_and_in_a_hole() -> None:
    names, domain = ("x", "y", "t"), InTime(RING, 0.0, 1.0)
    points = Grid([9, 9, 4], 40).draw(domain, np.random.default_rng(0), {"boundary": domain.region("boundary", names)})
    x = points["boundary"].x.numpy()
    assert len(x) == len(np.unique(x.round(9), axis=0))
    assert {x[:, 2].min(), x[:, 2].max()} == {0.0, 1.0}  # time is not closed: both of its ends belong to the grid


@pytest.mark.parametrize("sampler", [Uniform(90, 30), Grid(90, 30)], ids=lambda s: type(s).__name__)
def test_the_boundary_of_a_ball_in_one_dimension_is_two_points(sampler: Sampler) -> None:
    ball = Ball((1.0,), 2.0)
    regions = {name: ball.region(name, "x") for name in ("boundary", "sphere", "sphere_x_lower")}
    batch = sampler.draw(ball, np.random.default_rng(0), regions)
    assert batch["boundary"].x.tolist() == batch["sphere"].x.tolist() == [[-1.0], [3.0]]
    assert normals_of(batch["boundary"]).tolist() == [[-1.0], [1.0]]
    assert batch["sphere_x_lower"].x.tolist() == [[-1.0]]


@pytest.mark.parametrize("in_time", [False, True])
def test_a_grid_of_a_ball_of_many_dimensions_is_refused(in_time: bool) -> None:
    """Its points are made of more numbers than it has dimensions, the middles of which have no direction."""
    ball, names = Ball((0.0,) * 4, 1.0), ("x", "y", "z", "w", "t")
    domain = InTime(ball, 0.0, 1.0) if in_time else ball
    sentence = "a ball of more than three dimensions and its sphere have no grid: expected points off a grid, choose"
    with pytest.raises(UsageError, match=sentence):
        Grid([3] * domain.interior().parameters, 81).draw(domain, np.random.default_rng(0), {})
    (sphere,) = domain.region("boundary", names if in_time else names[:4])
    box = Difference(Box((-2.0,) * domain.dimension, (2.0,) * domain.dimension), {"hole": domain})
    with pytest.raises(UsageError, match=sentence):
        Grid(3**domain.dimension, 81).draw(box, np.random.default_rng(0), {"hole": [sphere]})


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Disc((0.0, 0.0), 0.0), r"a disc at \(0.0, 0.0\) of radius 0.0 has no points: expected finite numbers"),
        (lambda: Ball((0.0, math.nan, 0.0), 1.0), "a ball at .* of radius 1.0 has no points"),
        (lambda: Polygon([(0, 0), (1, 1), (1, 0), (0, 1)]), r"a polygon is not simple \(Self-intersection.*: expected"),
        (lambda: Polygon([(0, 0), (1, 1)]), r"expected three or more points \(x, y\) of finite"),
        (
            lambda: Polygon([(0, 0), (1, 0), (1, 1), (0, 0)]),
            r"the corner \(0, 0\) of a polygon follows itself: expected",
        ),
        (lambda: Disc((0.0, 0.0, 0.0), 1.0), "a disc has a center .*: expected 2 coordinates"),  # type: ignore[arg-type]
        (lambda: Difference(SQUARE, {"data": SQUARE}), "'data' names no piece of a boundary: expected a word"),
        (
            lambda: Difference(SQUARE, {"a": SQUARE, "a_2": SQUARE}),
            "cannot tell the pieces a and a_2 of a domain apart",
        ),
        (
            lambda: Difference(RING, {"circle": SQUARE}).parts("xy"),
            "the pieces circle and circle of a domain apart: exp",
        ),
        (lambda: Pinned(SQUARE, {"x": (0.0, 0.0)}).parts("xy"), "the pieces x and x_lower of a domain apart: expected"),
        (
            lambda: Difference(InTime(SQUARE, 0.0, 1.0), {"hole": Disc((0.0, 0.0), 0.5)}),
            r"cannot be combined \(the whole has 3, hole has 2\): expected the same, with InTime around all",
        ),
        (lambda: Union({}), r"cannot be combined \(there is none\): expected the same"),
        (lambda: Difference(SQUARE, {"interior": SQUARE}), "'interior' names no piece of a boundary: expected a word"),
        (
            lambda: Away(SQUARE, [(0.0, 0.0)], 0.0),
            "points within 0.0 of corners cannot be left out: expected a positive",
        ),
        (lambda: Away(SQUARE, [(0.0,)], 0.1), r"the corners \[\(0.0,\)\] lie in no domain of 2 dimensions: expected"),
        (
            lambda: Pinned(SQUARE, {"out": (2.0, 0.0)}),
            r"the point out at \(2.0, 0.0\) lies outside of the domain: expe",
        ),
        (lambda: InTime(SQUARE, 1.0, 1.0), "time from 1.0 to 1.0 is no interval: expected a start before the end"),
        (lambda: InTime(SQUARE, 0.0, 1.0).parts(("x", "y", "z")), "expected t as the last one"),
        (lambda: CHANNEL.region("wall", "xy"), "'wall' is no region of this PDE: expected interior, boundary, x_lower"),
        (
            lambda: Uniform(5, 5).draw(L_SHAPE, np.random.default_rng(0), {"e": [L_SHAPE.parts("xy")["step_x_upper"]]}),
            "the region 'e' of the domain has no points: expected some",
        ),
        (
            lambda: Uniform(5, 5).draw(Difference(SQUARE, {"all": SQUARE}), np.random.default_rng(0), {}),
            "0 points were found in the region 'interior', and 5 were asked for: expected a domain",
        ),
    ],
)
def test_what_is_no_domain_is_refused(make: object, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        make()  # type: ignore[operator]  # each is a function


def test_a_slit_is_a_thin_hole_with_two_sides() -> None:
    """The square without [0, 1] x {0}: points lie on both sides, and the hole takes hardly any other boundary."""
    square = Box((-1.0, -1.0), (1.0, 1.0))
    slit = Difference(square, {"slit": Box((0.0, -1e-6), (1.0, 1e-6))})
    lengths = {name: part.share() for name, part in slit.parts(("x", "y")).items()}
    assert lengths["slit_y_lower"] == lengths["slit_y_upper"] == pytest.approx(1.0, rel=1e-3)
    assert lengths["slit_x_upper"] == 0
    assert lengths["x_upper"] == pytest.approx(2.0, rel=1e-3)
    for side in (-1, 1):
        (part,) = slit.region(f"slit_y_{'lower' if side < 0 else 'upper'}", ("x", "y"))
        x, normals = part.draw("slit", 50, lambda: np.random.default_rng(0).random((50, 1)))
        assert (np.sign(x[:, 1]) == side).all()
        assert (normals[:, 1] == -side).all()  # out of the domain, into the slit
    assert slit.contains(np.array([[0.5, 0.01], [0.5, -0.01], [-0.5, 0.0], [0.5, 0.0]])).tolist() == [True] * 3 + [
        False
    ]

"""Options of every model: scaled and periodic inputs, scaled values, and the parameters of another run."""

import math
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures import Compose, KilledAt
from omegaconf import OmegaConf
from torch import Tensor, nn

from pde_train.derivatives import Request
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.reverse import Reverse
from pde_train.differentiators.taylor import Taylor
from pde_train.errors import UsageError
from pde_train.experiment import build
from pde_train.geometry import Box
from pde_train.models.base import linear_form
from pde_train.models.inputs import Inputs
from pde_train.models.mlp import MLP
from pde_train.models.options import Mapped, MappedLinear, Options
from pde_train.models.random_features import RandomFeatures
from pde_train.runs.run import run, run_config

pytestmark = pytest.mark.usefixtures("without_figures")

EPS = torch.finfo(torch.float64).eps
BOX = Box((-1.0, 2.0), (3.0, 2.5))
NAMES = ("x", "t")
MODELS = [
    "mlp",
    "two_layer",
    "random_features",
    "fourier_features",
    "modified_mlp",
    "pirate_net",
    "siren",
    "residual",
]


def points(count: int = 7, box: Box = BOX) -> Tensor:
    return torch.from_numpy(box.place(np.random.default_rng(1).random((count, box.dimension))))


def composed(
    options: Options,
    box: Box = BOX,
    make: Callable[[int], nn.Module] = lambda d: MLP(d, [5, 4], "tanh", seed=2, weight_range=1.0),
) -> nn.Module:
    inputs = options.inputs(box, NAMES)
    return options.around(make(box.dimension if inputs is None else inputs.width), inputs)


def jet(model: nn.Module, x: Tensor, names: str, differentiator: Differentiator | None = None) -> dict[str, Tensor]:
    found = (differentiator or Reverse())(model, x, Request.parse(names, NAMES))
    return {name: found.columns[name].detach() for name in names.split()}


# --- Without options nothing changes


@pytest.mark.parametrize("model", [name for name in MODELS if name != "siren"])
def test_a_model_without_options_is_the_class_itself(compose: Compose, model: str) -> None:
    assert not isinstance(build(compose(f"model={model}")).problem.model, Mapped)


def test_siren_alone_sees_scaled_inputs_unless_told_otherwise(compose: Compose) -> None:
    assert isinstance(build(compose("model=siren")).problem.model.inputs, Inputs)
    assert not isinstance(build(compose("model=siren", "model.input_scaling=false")).problem.model, Mapped)


# --- Scaling


def test_scaled_inputs_are_the_affine_map_of_the_box() -> None:
    inputs = Inputs(BOX, True, [], 1)
    corners = torch.tensor([[-1.0, 2.0], [3.0, 2.5], [1.0, 2.25]], dtype=torch.float64)
    expected = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(inputs(corners), expected, rtol=0, atol=2 * EPS)
    assert inputs.width == 2


def test_scaling_is_the_composed_function_with_the_chain_rule() -> None:
    scaled = composed(Options(input_scaling=True, output_scale=-2.5))
    network, x = MLP(2, [5, 4], "tanh", seed=2, weight_range=1.0), points()
    factors = torch.from_numpy(2 / BOX.lengths)
    z = (x - torch.tensor(BOX.lower)) * factors - 1
    names = "u u_x u_t u_xx u_xt u_xxt"
    inner, outer = jet(network, z, names), jet(scaled, x, names)
    for name in names.split():
        axes = name.removeprefix("u").removeprefix("_")
        factor = -2.5 * math.prod(float(factors[NAMES.index(c)]) for c in axes)
        scale = abs(factor) * float(inner[name].abs().max())
        torch.testing.assert_close(outer[name], factor * inner[name], rtol=0, atol=200 * EPS * scale)


def test_a_scale_alone_leaves_the_inputs() -> None:
    scaled, network, x = composed(Options(output_scale=4.0)), MLP(2, [5, 4], "tanh", 2, 1.0), points()
    assert torch.equal(scaled(x), 4 * network(x))


# --- Periodic embedding


def test_a_periodic_embedding_is_cosines_and_sines_beside_the_other_coordinates() -> None:
    inputs, x = Inputs(BOX, False, [0], 3), points()
    phase = 2 * math.pi * (x[:, :1] + 1) / 4
    waves = [f(k * phase) for f in (torch.cos, torch.sin) for k in (1, 2, 3)]
    torch.testing.assert_close(inputs(x), torch.cat([x[:, 1:], *waves], dim=1), rtol=0, atol=50 * EPS)
    assert inputs.width == 7


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("periodic", [["x"], ["t"], ["t", "x"]], ids=str)
@pytest.mark.parametrize("differentiator", [Reverse(), Taylor()], ids=lambda d: type(d).__name__)
def test_u_and_its_derivatives_are_the_same_at_both_ends(
    scaled: bool, periodic: list[str], differentiator: Differentiator
) -> None:
    model = composed(Options(input_scaling=scaled, periodic=periodic, harmonics=3, output_scale=2.0))
    names = "u u_x u_t u_xx u_xt u_xxx u_xxxx"
    for name in periodic:
        axis, lower = NAMES.index(name), points()
        lower[:, axis] = BOX.lower[axis]
        upper = lower.clone()
        upper[:, axis] = BOX.upper[axis]
        left, right = (jet(model, x, names, differentiator) for x in (lower, upper))
        for k in left:
            # the phase 6 pi at the upper end is off by some roundings, the derivative by those times the next one
            scale = max(1.0, float(left[k].abs().max())) * 6 * math.pi * 2 * math.pi * 3 / BOX.lengths[axis]
            torch.testing.assert_close(left[k], right[k], rtol=0, atol=20 * EPS * scale)


def test_a_model_that_is_periodic_is_not_constant_there() -> None:
    model = composed(Options(periodic=["x"]))
    x = points(50)
    assert float(jet(model, x, "u_x")["u_x"].abs().max()) > 0.01


@pytest.mark.parametrize("periodic", [["y"], ["x", "x"], ["lap"]], ids=str)
def test_a_coordinate_that_is_not_there_is_refused(compose: Compose, periodic: list[str]) -> None:
    words = f"model.periodic=[{','.join(periodic)}]"
    with pytest.raises(UsageError, match=r"model\.periodic=\[.*\] cannot be embedded: expected some of the .* x, t,"):
        build(compose("pde=convection_1d", "model=mlp", words))


def test_more_waves_than_memory_has_room_for_are_refused(compose: Compose) -> None:
    with pytest.raises(UsageError, match=r"model\.harmonics asks for .* numbers"):
        build(compose("model=mlp", "model.periodic=[x]", "model.harmonics=100000000000"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("model.harmonics=0", r"model\.harmonics=0 makes no wave: expected a positive integer"),
        ("model.output_scale=0", r"model\.output_scale=0 leaves nothing of u: expected a finite number other than 0"),
        ("model.output_scale=big", r"model\.output_scale=big does not fit: expected a valid number"),
        ("model.input_scaling=1", r"model\.input_scaling=1 does not fit: expected a valid boolean"),
        ("model.periodic=x", r"model\.periodic=x does not fit"),
        ("+model.period=[x]", r"model\.period is no field .* did you mean"),
    ],
)
def test_values_that_fit_no_option_are_refused(compose: Compose, words: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        build(compose("model=mlp", words))


def test_the_buffers_of_inputs_are_in_no_file() -> None:
    model = composed(Options(input_scaling=True, periodic=["x"]))
    assert all("inputs" not in name for name in model.state_dict())
    assert {name for name, _ in model.named_buffers()} == {
        f"inputs.{k}" for k in ("origin", "plain", "offset", "waves")
    }
    assert model.to(torch.float32)(points().float()).dtype == torch.float32


# --- Every model


@pytest.mark.parametrize("model", MODELS)
def test_every_model_is_exactly_periodic_where_it_is_told_to(compose: Compose, model: str) -> None:
    words = ["pde=convection_1d", "model.periodic=[x]", "model.harmonics=2", "model.output_scale=3.0"]
    problem = build(compose(f"model={model}", *words)).problem
    with torch.no_grad():
        for parameter in problem.model.parameters():
            parameter.add_(0.1)
    t = torch.linspace(0, 1, 6, dtype=torch.float64)[:, None]
    left, right = (problem.model(torch.cat([torch.full_like(t, end), t], dim=1)) for end in (0.0, 2 * math.pi))
    assert float(left.detach().abs().max()) > 0
    # the phase 4 pi is off by a few roundings, and siren multiplies what it sees by 30
    torch.testing.assert_close(left, right, rtol=0, atol=1e4 * EPS * float(left.detach().abs().max()))


def test_a_linear_model_with_options_is_linear() -> None:
    options = Options(input_scaling=True, output_scale=2.0, periodic=["x"])
    model = composed(options, make=lambda d: RandomFeatures(d, 6, "tanh", 1.0, seed=0))
    assert isinstance(model, MappedLinear)
    form, x = linear_form(model), points()
    assert form is not None
    assert form.coefficients is model.model.coefficients
    with torch.no_grad():
        form.coefficients.copy_(torch.arange(6.0, dtype=torch.float64)[:, None])
        torch.testing.assert_close(model(x), form.features(x) @ form.coefficients, rtol=0, atol=100 * EPS)


def test_least_squares_takes_periodic_features(compose: Compose, tmp_path: Path) -> None:
    words = ["pde=convection_1d", "model=random_features", "model.features=200", "sampler.interior=900"]
    errors = {}
    for periodic in ("[]", "[x]"):
        record = run(build(compose(*words, f"model.periodic={periodic}")), tmp_path / periodic)
        errors[periodic] = record.last()["error_l2"]
    assert errors["[x]"] < 1e-3  # measured: 1.5e-4, where points as they are give 2.3
    assert errors["[x]"] < 1e-2 * errors["[]"]


class Plain(nn.Module):
    """A model of a user, with `dimension` and nothing else."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.layer = nn.Linear(dimension, 1, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Own(Plain):
    """A model of a user with a field that an option has, too."""

    def __init__(self, dimension: int, periodic: list[int]) -> None:
        super().__init__(dimension)
        self.periodic = periodic


@pytest.mark.parametrize("more", [{}, {"output_scale": 2.0}], ids=str)
def test_models_of_users_need_to_know_of_no_option(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, more: dict[str, float]
) -> None:
    monkeypatch.setitem(sys.modules, "of_mine", module := types.ModuleType("of_mine"))
    for kind in (Plain, Own):
        monkeypatch.setattr(kind, "__module__", "of_mine")
        setattr(module, kind.__name__, kind)
    cfg = compose("trusted_modules=[of_mine]", "method=gradient_descent")
    OmegaConf.set_struct(cfg, False)
    cfg.model = {"_target_": "of_mine.Plain", **more}
    assert isinstance(build(cfg).problem.model, Mapped if more else Plain)
    cfg.model = {"_target_": "of_mine.Own", "periodic": [7], **more}
    own = build(cfg).problem.model
    assert (own.model if more else own).periodic == [7]


# --- The parameters of another run

SHORT = ["model=fourier_features", "model.hidden=[4]", "model.frequencies=3", "sampler.interior=16"]
TRAINED = [*SHORT, "method.steps=20", "method.checkpoint_every=20", "method.compile=never", "diagnostics=none"]


@pytest.mark.parametrize("file", ["", "model.pt", "checkpoint.ckpt"])
@pytest.mark.parametrize("options", [[], ["model.input_scaling=true", "model.output_scale=3.0"]], ids=["plain", "opt"])
def test_a_start_gives_the_values_of_the_other_run_to_the_bit(
    compose: Compose, tmp_path: Path, file: str, options: list[str]
) -> None:
    x = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None]
    other = build(compose(*TRAINED, *options))
    run(other, tmp_path)
    taken = build(compose(*TRAINED, *options, f"model.start={tmp_path / file}", "seed=5")).problem.model
    assert torch.equal(taken(x), other.problem.model(x))
    assert not torch.equal(build(compose(*TRAINED, *options, "seed=5")).problem.model(x), taken(x))


def test_parameters_go_from_a_run_without_options_to_one_with_them_and_back(compose: Compose, tmp_path: Path) -> None:
    x = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None]
    scaled = [*TRAINED, "model.output_scale=3.0"]
    run(build(compose(*TRAINED)), tmp_path / "plain")
    onward = build(compose(*scaled, f"model.start={tmp_path / 'plain'}"))
    plain = build(compose(*TRAINED, f"model.start={tmp_path / 'plain'}")).problem.model
    assert torch.equal(onward.problem.model(x), 3 * plain(x))
    run(onward, tmp_path / "scaled")
    for file in ("model.pt", "checkpoint.ckpt"):
        back = build(compose(*TRAINED, f"model.start={tmp_path / 'scaled' / file}")).problem.model
        assert torch.equal(3 * back(x), onward.problem.model(x))


def test_training_goes_on_from_its_start_and_resumes_to_the_same_bits(
    compose: Compose, tmp_path: Path, killed_at: KilledAt
) -> None:
    run(build(compose(*TRAINED)), tmp_path / "first")
    words = [*TRAINED, "method.steps=30", "method.chunk=10", "method.checkpoint_every=10"]
    cfg = compose(*words, f"model.start={tmp_path / 'first'}")
    run_config(cfg, tmp_path / "second", {}, [])
    with killed_at(20):
        run_config(cfg, tmp_path / "killed", {}, [])
    cfg.resume = True
    run_config(cfg, tmp_path / "killed", {}, [])
    ours, theirs = (torch.load(tmp_path / f / "model.pt", weights_only=True) for f in ("killed", "second"))
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, r"model\.start=.* cannot be read \(FileNotFoundError\): expected the folder, model.pt or checkpoint"),
        ("text", r"model\.start=.* cannot be read"),
        ({"layers.0.weight": torch.zeros(7, 1)}, r"model\.start=.* holds another model .*expected the model of this"),
    ],
)
def test_a_wrong_start_is_one_sentence(
    compose: Compose, tmp_path: Path, content: str | dict[str, Tensor] | None, sentence: str
) -> None:
    file = tmp_path / "model.pt"
    if content == "text":
        file.write_text("no tensors here")
    elif content is not None:
        torch.save(content, file)
    with pytest.raises(UsageError, match=sentence):
        build(compose(*SHORT, f"model.start={tmp_path}"))

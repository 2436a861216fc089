"""Any word on the command line is refused with one sentence and code 2, or gives a run that can be believed."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures import Compose
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pde_train.cli import _sentence
from pde_train.conf_dir import choices, groups
from pde_train.errors import PdeTrainError
from pde_train.runs.result import Result
from pde_train.runs.run import run_config

pytestmark = pytest.mark.usefixtures("without_figures")

FEW = ["sampler.interior=16", "sampler.boundary=8", "sampler.initial=8"]
TRAINED = [*FEW, "method.steps=3", "method.log_every=2", "method.compile=never"]
BASES = {
    "random features": [*FEW, "model.features=8", "differentiator=finite_difference"],
    "network": ["model=two_layer", "model.width=4", *TRAINED],
    "burgers": ["pde=burgers_1d", "model.hidden=[4]", "optimizer=adam_then_lbfgs", "optimizer.switch=1", *TRAINED],
    "plate": ["pde=biharmonic_2d", "model.features=8", "differentiator=hybrid", "sampler=sobol", *FEW],
    "beam": [
        "pde=euler_beam",
        "model=mlp",
        "model.hidden=[4,4]",
        "optimizer=lbfgs",
        "differentiator=reverse",
        *TRAINED,
    ],
    "contour": ["pde=linear_kdv_1d", "model.features=8", "differentiator=complex_step", *FEW],
    "directions": ["pde=poisson_nd", "model=mlp", "model.hidden=[4]", "differentiator=stochastic", *TRAINED],
    "parts": ["differentiator=finite_difference/truncation", "model.features=8", "entropy=absolute", *FEW],
    "probe": ["method=probe", "model=two_layer", "model.width=4", "diagnostics=spectrum", *FEW],
}
"""Small configurations that between them have every group's fields."""

VALUES = (
    *("null", "true", "false", "0", "-1", "1", "2", "3", "7", "10", "0.5", "-0.5", "1.5", "1e-3", "1e-12", "-1e-3"),
    *("1e3", "1e16", "1e300", "nan", "inf", "-inf", "abc", "auto", "tanh", "''", "[]", "{}", "[1]", "[0]", "[0.5]"),
    *("[1,2]", "[-1,2]", "[1e-3,0.5]", "[nan]", "[abc]", "[null]", "[[1]]", "{a:1}", "1" + 10 * "0", "1" + 20 * "0"),
)

ENDLESS = ("method.steps", "diagnostics.repeats")
"""Budgets: a large one is granted."""


def words(plain: dict[str, Any], draw: np.random.Generator) -> str:
    """A random override of a base configuration, as plain containers."""
    keys = [key for key in leaves(plain) if not key.startswith(("name", "tracking"))]
    kind = draw.choice(["value", "value", "value", "value", "value", "value", "choice", "delete", "add", "group"])
    key = draw.choice(keys)
    if kind == "choice":
        group = draw.choice(groups())
        return f"{group}={draw.choice([*choices(group), *VALUES[:4], 'abc', '7'])}"
    if kind == "delete":
        return f"~{draw.choice([*keys, *plain])}"
    if kind == "add":
        return f"+{key.rpartition('.')[0] or 'other'}.more={draw.choice(VALUES)}"
    if kind == "group":
        key = draw.choice([k for k, v in plain.items() if isinstance(v, dict) and k not in groups()])
    large = key in ENDLESS
    return f"{key}={draw.choice([v for v in VALUES if not (large and v.startswith('1000'))])}"


def leaves(node: dict[str, Any], path: str = "") -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}"


def outcome(compose: Compose, folder: Path, overrides: list[str]) -> tuple[str, str | list[str]]:
    """`refused`, `finished` or `failed`, after a check of what that must look like; a sentence about it."""
    try:
        cfg = compose(*overrides)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        return "refused", _sentence(error)
    refusal = None
    try:
        result = run_config(cfg, folder, {}, overrides)
    except PdeTrainError as error:
        refusal = error
    if refusal is not None:
        assert not (folder / "traceback.txt").exists(), (overrides, (folder / "traceback.txt").read_text())
        assert len(str(refusal).splitlines()) == 1
        return "refused" if refusal.code == 2 else "failed", str(refusal)
    assert result.status == "finished"
    told = ("residual", "residual_exact", "error_l2", "loss")
    numbers: list[Any] = [result.metrics[key] for key in told if key in result.metrics]
    assert result.flags or all(map(math.isfinite, numbers)), overrides
    assert Result.read(folder) is not None
    return "finished", result.flags


@pytest.mark.parametrize("seed", range(12))
def test_any_word_is_refused_or_gives_numbers_that_can_be_believed(compose: Compose, tmp_path: Path, seed: int) -> None:
    draw = np.random.default_rng(seed)
    plain: dict[str, Any] = {
        name: OmegaConf.to_container(compose(*base), resolve=False) for name, base in BASES.items()
    }
    for i in range(5 * len(BASES)):
        name = list(BASES)[i % len(BASES)]
        base, word = BASES[name], words(plain[name], draw)
        kind, sentence = outcome(compose, tmp_path / str(i), [*base, word])
        if kind == "failed":  # a run that was begun: its numbers became nan
            assert "became nan or infinite" in sentence or "are nan or infinite" in sentence, (word, sentence)

"""The cells of a grid are what Hydra composes of their words, however they are put together."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig

from pde_train.conf_dir import conf_dir
from pde_train.instantiate import plain
from pde_train.overrides import NUMBER, by_hydra
from pde_train.sweeps import compose

FILE = """
seed: 0
a: {b: {c: 1, d: "x"}, seed: "${seed}"}
list: [1, "${a.b.c}", [3, "${seed}"]]
again: "${a.seed}"
text: "run ${seed} of ${a.b.d}"
node: "${a.b}"
far: {relative: "${..a.b.c}", environment: "${oc.env:HOME}", selected: "${oc.select:a.b.c,5}"}
alone: 7
"""

Loaded = tuple[ConfigLoader, DictConfig]


@pytest.fixture
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Loaded]:
    """Hydra's loader and the configuration of a sweep: ours, or a file with every kind of reference."""
    folder = conf_dir()
    if request.param == "of references":
        folder = tmp_path
        (folder / "config.yaml").write_text(FILE)
    with initialize_config_dir(str(folder), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        yield loader, loader.load_configuration("config", [], RunMode.MULTIRUN)


@pytest.mark.parametrize(
    ("loaded", "words"),
    [
        ("ours", ["seed=0,1,2", "pde=poisson_1d,heat_1d", "model.features=10,20"]),
        ("ours", ["seed=7,8", "sampler.interior=9,16", "model=two_layer", "model.activation=tanh,sin"]),
        ("ours", ["sampler.seed=3,${seed}", "seed=1,2"]),
        ("ours", ["model=mlp", "model.hidden=[3],[4,5]", "seed=1,2", "optimizer.lr=1e-3,0.5"]),
        ("of references", ["seed=3,null,text"]),
        ("of references", ["seed=1,2", "text=x,y", "again=1,2"]),
        ("of references", ["seed=1,2", "text=z"]),
        ("of references", ["a.b.c=2,3.5,true"]),
        ("of references", ["a.b.d=${alone},y"]),
        ("of references", ["alone=1,2,'quoted text',1e-30"]),
        ("of references", ["list.0=5,6", "alone=1,2"]),
        ("of references", ["node=1,2", "a.b.c=4,5"]),
        ("of references", ["a={b:{c:2}},{b:{c:3}}", "alone=1"]),
    ],
    indirect=["loaded"],
)
def test_cells_are_what_hydra_composes_of_their_words(loaded: Loaded, words: list[str]) -> None:
    loader, master = loaded
    cells = compose.combinations(words, loader)
    found = [config for config, _ in compose.composed(cells, loader, master)]
    hydra = [compose._without_hydra(loader.load_sweep_config(master, cell)) for cell in cells]
    assert found == [plain(config) for config in hydra]
    assert len({str(config) for config in found}) == len(cells)


@pytest.mark.parametrize("loaded", ["ours"], indirect=True)
def test_cells_that_differ_in_numbers_are_resolved_once(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    loader, master = loaded
    resolved = itertools.count()

    def counted(config: DictConfig) -> dict[str, object]:
        next(resolved)
        return plain(config)

    monkeypatch.setattr(compose, "plain", counted)
    cells = compose.combinations(["seed=range(50)", "model.features=10,20", "differentiator=reverse,forward"], loader)
    assert len(list(compose.composed(cells, loader, master))) == 200
    assert next(resolved) == 2


@pytest.mark.parametrize(
    "word",
    [
        *(
            "seed=0",
            "seed=17",
            "seed=-3",
            "seed=007",
            "seed=-0",
            "a.b_2.c=5",
            "seed=1_000",
            "seed=+4",
            "2.a=5",
            "a.0=5",
        ),
        *("lr=1e-3", "lr=0.5", "lr=-2.50", "lr=1E+05", "lr=1e5", "lr=.5", "lr=5.", "lr=1.5e-3", "lr=-1.e3", "lr=00.5"),
        *("+seed=1", "~seed=1", "seed= 1", "seed=1 ", "seed=1,2", "seed=inf", "lr=null", "a@b=1", "a/b=1"),
    ],
)
def test_numbers_are_read_as_hydra_reads_them(word: str) -> None:
    """Those that need no parser, and what is nearly one of them."""
    by_hydra.cache_clear()
    assert by_hydra(word) == OverridesParser.create().parse_override(word)


def test_whole_and_real_numbers_need_no_parser() -> None:
    assert all(NUMBER.fullmatch(word) for word in ("seed=17", "a.b=-3", "lr=1e-3", "lr=0.5", "lr=-1.5E+03"))

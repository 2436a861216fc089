"""Fixtures of every test.

What takes seconds to import is imported by those that need it: the process that shares tests out has this file, too.
"""

from __future__ import annotations

import fcntl
import gc
import itertools
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import forked
import pytest

if TYPE_CHECKING:
    from fixtures import Compose, KilledAt

    from pde_train.tracking.uploader import Uploader
    from pde_train.training.loop import Loop

WORKER = "PYTEST_XDIST_WORKER"
"""Environment variable that a process of pytest-xdist has."""

SLOW = Path(__file__).with_name("slow_tests.txt")
"""The tests that are marked as slow; `make test WORDS=--list-slow` writes it."""

IN_MEMORY = 4 << 30
"""Bytes that must be free in memory for temporary folders to be there: all tests together write some 0.6 GB."""

SLOW_SECONDS = 0.2
"""What a slow test takes at least, in the mean over its parameters."""


def pytest_configure() -> None:
    """Temporary folders are in memory where there is enough of it: hundreds of databases would wait for the disk."""
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > IN_MEMORY:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))


def pytest_make_collect_report(collector: pytest.Collector) -> None:
    """Modules that compose while they are collected do it as tests do."""
    if isinstance(collector, pytest.Module):
        forked.keep_compositions()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--list-slow", action="store_true", help=f"write {SLOW.name} anew from the times of this session")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first, those of SLURM before all: short ones then fill what is left at the end for each process."""
    slow = set(SLOW.read_text().split())
    for item in items:
        if _function(item.nodeid) in slow:
            item.add_marker("slow")
    items.sort(key=lambda item: (item.get_closest_marker("slurm") is None, item.get_closest_marker("slow") is None))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Keep the names of slow tests, where that is asked for; tests that were skipped or not run keep their place."""
    if not config.getoption("list_slow"):
        return
    seconds, cases = defaultdict[str, float](float), defaultdict[str, set[str]](set)
    for report in itertools.chain.from_iterable(terminalreporter.stats.values()):
        if isinstance(report, pytest.TestReport):
            seconds[_function(report.nodeid)] += report.duration
            if report.when == "call" and not report.skipped:
                cases[_function(report.nodeid)].add(report.nodeid)
    kept = set(SLOW.read_text().split()) - set(cases)
    kept |= {name for name, nodes in cases.items() if seconds[name] > SLOW_SECONDS * len(nodes)}
    SLOW.write_text("".join(f"{name}\n" for name in sorted(kept)))


def _function(nodeid: str) -> str:
    """The name of a test without its parameters, as in ``test_cli.py::test_the_help``."""
    return nodeid.partition("[")[0].removeprefix("tests/")


@pytest.fixture(autouse=True, scope="session")
def loaded_once() -> None:
    """What is imported and collected stays, and garbage is looked for seldom: it takes a tenth of a composition."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tensors this small take many times longer where torch wakes a second thread for them."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def every_checkpoint() -> Iterator[None]:
    """Checkpoints are written at every step that is to have one, although the short steps of tests are worth few."""
    from pde_train.training import training

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "SAVING", float("inf"))
        yield


@pytest.fixture(autouse=True, scope="session")
def own_compiled_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled code of this session alone: what runs compiled must not depend on what a user has run before.

    The processes of pytest-xdist share it: the parent of their own temporary folders is that of the session.
    """
    from pde_train.cache import CACHE

    folder = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE, str((folder.parent if WORKER in os.environ else folder) / "compiled"))
        yield


@pytest.fixture(autouse=True, scope="session")
def new_stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """New sqlite stores are copies of one, which the processes of pytest-xdist share as they do compiled code."""
    from mlflow.tracking import MlflowClient

    folder = tmp_path_factory.getbasetemp()
    file = (folder.parent if WORKER in os.environ else folder) / "new_store.db"
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            MlflowClient(f"sqlite:///{file}").search_experiments()
    forked.copy_new_stores()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(forked.NEW_STORE, str(file))
        yield


@pytest.fixture
def compose() -> Iterator[Compose]:
    """Composes a configuration from overrides, without a run around it."""
    import hydra

    from pde_train.conf_dir import conf_dir

    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        yield lambda *overrides: hydra.compose("config", ["name=test", "tracking=none", *overrides])


@pytest.fixture
def killed_at(monkeypatch: pytest.MonkeyPatch) -> KilledAt:
    """Inside `with killed_at(step):` a run is interrupted after that step, whether or not it has a checkpoint of it."""
    from pde_train.errors import Interrupted
    from pde_train.training.loop import Loop

    @contextmanager
    def inside(step: int) -> Iterator[None]:
        train = Loop.train

        def killed(self: Loop, start: int, stop: int) -> None:
            train(self, start, stop)
            if stop == step:
                raise Interrupted(9, step)

        with monkeypatch.context() as patch:
            patch.setattr(Loop, "train", killed)
            with pytest.raises(Interrupted):
                yield

    return inside


@pytest.fixture
def rules() -> Iterator[None]:
    """Rules of Taylor mode that a test adds are those of that test alone."""
    from pde_train.differentiators.series import RULES

    before = dict(RULES)
    yield
    RULES.clear()
    RULES.update(before)


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than the small runs of most tests."""
    from pde_train.runs import artifacts

    monkeypatch.setattr(artifacts, "draw", lambda problem, record, entropy: {})


@pytest.fixture
def few_test_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Residuals and errors at a hundred points, not at ten thousand, are numbers all the same."""
    from pde_train import problem
    from pde_train.samplers.grid import Grid

    monkeypatch.setattr(problem, "TEST_POINTS", {1: Grid(101, 2), 2: Grid(11**2, 44, initial=11)})


@pytest.fixture
def forked_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps that are begun in Python are commands that begin at once."""
    monkeypatch.setattr("pde_train.api.Popen", forked.in_place_of_popen)


@pytest.fixture(autouse=True, scope="session")
def server_of_processes() -> Iterator[None]:
    """The processes that fork for the commands of tests end with them."""
    yield
    forked.close_servers()


@pytest.fixture(autouse=True)
def uploaders(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Processes that deliver to the stores of a test begin at once, and end with it.

    By themselves they would take two seconds to import MLflow, and wait a minute for more to do.
    """
    from pde_train.tracking import uploader

    made: list[Uploader] = []
    start = uploader.Uploader._start
    monkeypatch.setattr(uploader, "subprocess", forked.InPlaceOfSubprocess)
    monkeypatch.setattr(uploader.Uploader, "_start", lambda self: made.append(self) or start(self))
    yield
    for one in made:
        one.close()

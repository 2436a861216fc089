import fcntl
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

import forked
import pytest
import torch
from fixtures import Compose, KilledAt
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from mlflow.tracking import MlflowClient

from pde_train.cache import CACHE
from pde_train.conf_dir import conf_dir
from pde_train.differentiators.series import RULES
from pde_train.errors import Interrupted
from pde_train.runs import artifacts
from pde_train.tracking import uploader
from pde_train.training.loop import Loop

WORKER = "PYTEST_XDIST_WORKER"
"""Environment variable that a process of pytest-xdist has."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first, those of SLURM before all: short ones then fill what is left at the end for each process."""
    items.sort(key=lambda item: (item.get_closest_marker("slurm") is None, item.get_closest_marker("slow") is None))


@pytest.fixture(autouse=True, scope="session")
def loaded_once() -> None:
    """What is imported and collected stays: looking for garbage in it takes a tenth of a composition."""
    forked.keep_loaded_files()
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tensors this small take many times longer where torch wakes a second thread for them."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def own_compiled_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled code of this session alone: what runs compiled must not depend on what a user has run before.

    The processes of pytest-xdist share it: the parent of their own temporary folders is that of the session.
    """
    folder = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE, str((folder.parent if WORKER in os.environ else folder) / "compiled"))
        yield


@pytest.fixture(autouse=True, scope="session")
def new_stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """New sqlite stores are copies of one, which the processes of pytest-xdist share as they do compiled code."""
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
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        yield lambda *overrides: hydra_compose("config", ["name=test", "tracking=none", *overrides])


@pytest.fixture
def killed_at(monkeypatch: pytest.MonkeyPatch) -> KilledAt:
    """Inside `with killed_at(step):` a run is interrupted after that step, whether or not it has a checkpoint of it."""

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
    before = dict(RULES)
    yield
    RULES.clear()
    RULES.update(before)


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than the small runs of most tests."""
    monkeypatch.setattr(artifacts, "draw", lambda problem, record, entropy: {})


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
    made, start = [], uploader.Uploader._start
    monkeypatch.setattr(uploader, "subprocess", forked.InPlaceOfSubprocess)
    monkeypatch.setattr(uploader.Uploader, "_start", lambda self: made.append(self) or start(self))
    yield
    for one in made:
        one.close()

"""Commands in processes of their own that begin at once: a process that has imported the package forks for each.

Importing torch, Lightning and Matplotlib takes `python -m pde_train` several seconds of processor time, which is most
of the time of a small sweep. A forked process has its own folder, environment, pipes and process group, takes signals
and ends with an exit code as any other. Tests of the start itself use `subprocess`.
"""

import atexit
import contextlib
import copy
import dataclasses
import functools
import gc
import importlib
import itertools
import json
import os
import pickle
import pkgutil
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

LARGEST = 1 << 17
"""Bytes of a request, most of which is the environment."""

SLICE = 0.05
"""Seconds for which one thread waits for messages before another may."""


class Forked:
    """A process that was forked; what tests use of `subprocess.Popen`, with stdout and stderr as pipes of text."""

    def __init__(self, server: "Server", pid: int, pipes: tuple[int, ...]):
        self.pid = pid
        self.returncode: int | None = None
        self._server = server
        self._pipes = pipes

    def poll(self) -> int | None:
        self._server.hear(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        until = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            left = _left(self, until)
            self._server.hear(SLICE if left is None else min(left, SLICE))
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Both outputs, once every process that has inherited them has closed them and this one has ended."""
        until = None if timeout is None else time.monotonic() + timeout
        said = dict.fromkeys(self._pipes, b"")
        with selectors.DefaultSelector() as waiting:
            for pipe in said:
                waiting.register(pipe, selectors.EVENT_READ)
            while waiting.get_map():
                for key, _ in waiting.select(_left(self, until)):
                    data = os.read(key.fd, 1 << 16)
                    said[key.fd] += data
                    if not data:
                        waiting.unregister(key.fd)
        self.wait(None if until is None else max(0.0, until - time.monotonic()))
        for pipe in self._pipes:
            os.close(pipe)
        out, err = (text.decode() for text in said.values())
        self._pipes = ()
        return out, err

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _left(process: Forked, until: float | None) -> float | None:
    if until is None:
        return None
    left = until - time.monotonic()
    if left <= 0:
        raise subprocess.TimeoutExpired(f"process {process.pid}", 0)
    return left


class Server:
    """The process that forks, as seen by the tests."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._socket = ours
        self._lock = threading.Lock()
        self._forked: dict[int, Forked] = {}
        self._ended: dict[int, int] = {}

    def start(self, command: list[str], folder: Path, environment: dict[str, str]) -> Forked:
        """`python command...` in a folder and a session of its own; a command begins with -m or -c."""
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        with Path(os.devnull).open("rb") as nothing:
            pid = self._fork(command, folder, environment, [nothing.fileno(), out_end, err_end])
        os.close(out_end)
        os.close(err_end)
        return self._began(Forked(self, pid, (out, err)))

    def start_into(self, file: Path, command: list[str], folder: Path, environment: dict[str, str]) -> Forked:
        """The same, with both outputs in a file."""
        with Path(os.devnull).open("rb") as nothing, file.open("ab") as both:
            pid = self._fork(command, folder, environment, [nothing.fileno(), both.fileno(), both.fileno()])
        return self._began(Forked(self, pid, ()))

    def start_uploader(self, command: list[str], environment: dict[str, str]) -> Forked:
        """The process of `pde_train.tracking.uploader`, which has neither input nor output."""
        return self.start_into(Path(os.devnull), command, Path.cwd(), environment)

    def _fork(self, command: list[str], folder: Path, environment: dict[str, str], standard: list[int]) -> int:
        about = {"command": command, "folder": str(folder), "environment": environment}
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(about).encode()], standard)
            while (pid := self._hear(None)) is None:
                pass
        return pid

    def _began(self, process: Forked) -> Forked:
        with self._lock:
            self._forked[process.pid] = process
            process.returncode = self._ended.pop(process.pid, None)
        return process

    def hear(self, seconds: float) -> None:
        """Take the next message, for which it waits so long."""
        with self._lock:
            self._hear(seconds)

    def _hear(self, seconds: float | None) -> int | None:
        """The number of a process that has just begun, if that is the message."""
        self._socket.settimeout(seconds)
        try:
            message = self._socket.recv(LARGEST)
        except (BlockingIOError, TimeoutError):
            return None
        if not message:
            raise ChildProcessError("the process that forks has ended")
        pid, code = json.loads(message)
        if code is None:
            return pid
        if pid in self._forked:
            self._forked.pop(pid).returncode = code
        else:  # before it was known here
            self._ended[pid] = code
        return None

    def close(self) -> None:
        """End the process, and what is left of those that it has forked."""
        self._socket.close()
        self._process.wait()


class InPlaceOfSubprocess:
    """The module `subprocess` as `pde_train.tracking.uploader` sees it in the process of the tests."""

    DEVNULL = subprocess.DEVNULL

    @staticmethod
    def Popen(command: list[str], env: dict[str, str], **how: object) -> Forked:
        assert command[:2] == [sys.executable, "-m"]
        return server().start_uploader(command[1:], env)


class Child:
    """A process that this one forks, in place of one that would import MLflow first; as little of Popen as it takes."""

    DEVNULL = subprocess.DEVNULL

    def __init__(self, command: list[str], env: dict[str, str]):
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            try:
                gc.freeze()  # no file of the parent is closed, whose descriptor then is another's
                os.setsid()
                os.closerange(3, os.sysconf("SC_OPEN_MAX"))
                nothing = [os.open(os.devnull, os.O_RDWR) for _ in range(3)]
                become({"command": command[1:], "folder": str(Path.cwd()), "environment": env}, *nothing)
            finally:
                os._exit(1)

    @classmethod
    def Popen(cls, command: list[str], env: dict[str, str], **how: object) -> "Child":
        assert command[:2] == [sys.executable, "-m"]
        return cls(command, env)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self) -> int:
        while (code := self.poll()) is None:
            time.sleep(0.001)
        return code

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def fork_workers() -> None:
    """Processes that joblib starts for a sweep are forked, too: each would import the whole package anew.

    A fork begins with what a new interpreter begins with: no handlers of signals, nothing to do at its end, and no
    files but those that are passed.
    """
    from joblib.externals.loky.backend import fork_exec

    def fork(command: list[str], keep_fds: Iterable[int], env: dict[str, str] | None = None) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            gc.freeze()  # no file of the parent is closed, whose descriptor then is another's
            ends = [2, *sorted({int(number) for number in keep_fds} - {0, 1, 2}), os.sysconf("SC_OPEN_MAX")]
            for before, after in itertools.pairwise(ends):
                os.closerange(before + 1, after)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            atexit._clear()
            threading._threading_atexits.clear()  # type: ignore[attr-defined]
            sys.modules.pop(command[2], None)  # which `python -m` imports as __main__
            environment = {**os.environ, **(env or {})}
            become({"command": command[1:], "folder": str(Path.cwd()), "environment": environment})
        finally:
            os._exit(1)

    fork_exec.fork_exec = fork


WITHOUT_FIGURES = "TESTS_WITHOUT_FIGURES"
"""Environment variable that is set for commands that draw nothing, which takes longer than small runs and sweeps."""

NEW_STORE = "TESTS_NEW_STORE"
"""Environment variable that names a sqlite file with the tables of a new store."""


def copy_new_stores() -> None:
    """Make new sqlite stores of this process as copies of NEW_STORE: MLflow makes its tables in fifty steps, a second.

    Without the environment variable they are made as ever.
    """
    from pde_train.tracking import delivery, uris
    from pde_train.tracking.store_files import check_file

    def copied(uri: str) -> None:
        file = uris.sqlite_file(uri)
        if file is not None and NEW_STORE in os.environ and file.parent.is_dir() and not file.exists():
            beside = file.with_name(f"{file.name}.{os.getpid()}")
            shutil.copy(os.environ[NEW_STORE], beside)
            with contextlib.suppress(FileExistsError):  # another process was faster
                os.link(beside, file)
            beside.unlink()
        check_file(uri)

    delivery.check_file = copied  # type: ignore[attr-defined]  # the name by which it is called there


@functools.cache
def keep_compositions() -> None:
    """Read each file of conf/ and of Hydra's own configuration once in this process, and merge what is chosen once.

    What is left of a composition is to set values in a copy, a tenth of it, and to merge what comes after the first
    choice that differs from those of all compositions before. Interpolations are parsed once. Files of other folders,
    which a test may write anew, are read and merged as ever.
    """
    import omegaconf
    from hydra._internal import config_loader_impl, defaults_list
    from hydra._internal.config_repository import ConfigRepository, IConfigRepository
    from hydra._internal.defaults_list import DefaultsList, Overrides
    from hydra.core.default_element import InputDefault, ResultDefault
    from hydra.core.override_parser.types import Override
    from hydra.plugins.config_source import ConfigResult
    from omegaconf import DictConfig, flag_override

    from pde_train.conf_dir import conf_dir

    loader = config_loader_impl.ConfigLoaderImpl
    load, choose, merge, load_one = (
        ConfigRepository.load_config,
        defaults_list.create_defaults_list,
        loader._compose_config_from_defaults_list,
        loader._load_single_config,
    )
    files: dict[str, bytes] = {}
    choices: dict[object, DefaultsList] = {}
    merged: dict[object, bytes] = {}
    sources = ["hydra.conf", str(conf_dir()), ""]  # the last are classes that plugins have registered

    def is_known(repo: IConfigRepository) -> bool:
        return [source.path for source in repo.get_sources()] == sources

    def loaded(self: ConfigRepository, config_path: str) -> ConfigResult | None:
        if not is_known(self):
            return load(self, config_path)
        if config_path not in files:
            if (result := load(self, config_path)) is None:
                return None
            files[config_path] = pickle.dumps(result)
        read: ConfigResult = pickle.loads(files[config_path])  # four times as fast as copy.deepcopy
        return read

    def chosen(
        repo: IConfigRepository, config_name: str | None, overrides_list: list[Override], **how: bool
    ) -> DefaultsList:
        if not is_known(repo):
            return choose(repo, config_name, overrides_list, **how)
        values = Overrides(repo, overrides_list).config_overrides
        groups = [word.input_line for word in overrides_list if all(word is not value for value in values)]
        key = (config_name, *groups, *how.items())
        if key not in choices:
            choices[key] = choose(repo, config_name, overrides_list, **how)
        return dataclasses.replace(choices[key], config_overrides=values)

    def merged_once(
        self: config_loader_impl.ConfigLoaderImpl, defaults: list[ResultDefault], repo: IConfigRepository
    ) -> DictConfig:
        """As Hydra merges, but beginning with the longest list of first choices that was merged before."""
        if not is_known(repo):
            return merge(self, defaults, repo)
        keys = list(itertools.accumulate(map(str, defaults)))
        known = next((k for k in range(len(keys), 0, -1) if keys[k - 1] in merged), 0)
        cfg: DictConfig = pickle.loads(merged[keys[known - 1]]) if known else DictConfig({})
        for key, default in zip(keys[known:], defaults[known:], strict=True):
            with flag_override(cfg, "no_deepcopy_set_nodes", True):
                cfg.merge_with(load_one(self, default=default, repo=repo).config)
            merged[key] = pickle.dumps(cfg)
        with flag_override(cfg.hydra, ["readonly", "struct"], False):  # lists of choices end here, as Hydra's do
            cfg.hydra._set_flag("HYDRA_REMOVE_TOP_LEVEL_DEFAULTS", None)
            cfg.hydra.pop("defaults", None)
        return cfg

    interpolation_map = defaults_list._create_interpolation_map

    def mapped(overrides: Overrides, defaults: list[InputDefault], self_added: bool) -> DictConfig | None:
        """Nothing where there is nothing to interpolate, as in almost every file."""
        if any(default.is_interpolation() for default in defaults):
            return interpolation_map(overrides, defaults, self_added)
        return None

    omegaconf.base.parse = functools.cache(omegaconf.base.parse)  # type: ignore[attr-defined]  # trees that nobody changes
    defaults_list._create_interpolation_map = mapped  # type: ignore[assignment]
    ConfigRepository.load_config = loaded  # type: ignore[method-assign]
    ConfigRepository.__deepcopy__ = lambda self, memo: copy.copy(self)  # type: ignore[attr-defined]  # of whole folders
    config_loader_impl.create_defaults_list = chosen  # type: ignore[assignment, attr-defined]
    loader._compose_config_from_defaults_list = merged_once  # type: ignore[method-assign]


SERVERS: list[Server] = []
"""The one of this process, made when it is needed."""


ONE_AT_A_TIME = threading.Lock()


def server() -> Server:
    with ONE_AT_A_TIME:  # parts of the study run in threads, and a second server would be lost
        if not SERVERS:
            SERVERS.append(Server())
        return SERVERS[0]


def close_servers() -> None:
    while SERVERS:
        SERVERS.pop().close()


def started(*command: str, folder: Path, environment: dict[str, str] | None = None) -> Forked:
    """`python command...` under way; without `environment` in that of the tests."""
    return server().start(list(command), folder, dict(os.environ) if environment is None else environment)


def run(
    *command: str, folder: Path, environment: dict[str, str] | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """What `python command...` gave at its end."""
    process = started(*command, folder=folder, environment=environment)
    out, err = process.communicate(timeout)
    return subprocess.CompletedProcess(list(command), process.wait(), out, err)


def in_place_of_popen(command: list[str], stderr: int, stdout: Any = None, text: bool = False) -> Forked:
    """`subprocess.Popen` as parts of the study are begun, with both outputs in a file, and sweeps in Python.

    The second have their errors in a pipe, and the output of the tests.
    """
    assert command[:2] == [sys.executable, "-m"]
    if stdout is not None:
        return server().start_into(Path(stdout.name), command[1:], Path.cwd(), dict(os.environ))
    process = started(*command[1:], folder=Path.cwd())
    communicate = process.communicate

    def shown(timeout: float | None = None) -> tuple[str, str]:
        out, err = communicate(timeout)
        sys.stdout.write(out)
        return "", err

    process.communicate = shown  # type: ignore[method-assign]
    return process


# --- The process that forks


def serve(number: int) -> None:
    """Fork for each request, and tell of each process when it begins and when it ends."""
    requests = socket.socket(fileno=number)
    running: dict[int, int] = {}  # descriptors of processes, and their numbers
    with selectors.DefaultSelector() as waiting:
        waiting.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in waiting.select():
                if key.fd != number:
                    pid = running.pop(key.fd)
                    waiting.unregister(key.fd)
                    os.close(key.fd)
                    _say(requests, pid, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                    continue
                message, pipes, *_ = socket.recv_fds(requests, LARGEST, 3)
                if not message:
                    for pid in running.values():
                        os.kill(pid, signal.SIGKILL)
                    return
                group, child_end = os.pipe()
                pid = os.fork()
                if pid == 0:
                    os.setsid()
                    os.close(child_end)
                    os.close(group)
                    waiting.close()
                    requests.close()
                    for descriptor in running:
                        os.close(descriptor)
                    become(json.loads(message), *pipes)
                os.close(child_end)
                os.read(group, 1)  # until the child has a process group of its own, which may be sent signals
                os.close(group)
                for pipe in pipes:
                    os.close(pipe)
                descriptor = os.pidfd_open(pid)
                running[descriptor] = pid
                waiting.register(descriptor, selectors.EVENT_READ)
                _say(requests, pid, None)


def _say(answers: socket.socket, *word: int | None) -> None:
    with contextlib.suppress(BrokenPipeError):
        answers.send(json.dumps(word).encode())


def become(about: dict[str, Any], *pipes: int) -> None:
    """Be `python -m module words...` or `python -c code words...`; does not return."""
    for standard, ours in enumerate(pipes):
        os.dup2(ours, standard)
        os.close(ours)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests themselves run as `... &`
    os.chdir(about["folder"])
    os.environ.clear()
    os.environ.update(about["environment"])
    named = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:0] = [about["folder"], *(entry for entry in named if entry not in sys.path)]
    if WITHOUT_FIGURES in os.environ:
        from pde_train.runs import artifacts
        from pde_train.sweeps import overlays

        artifacts.draw = lambda problem, record, entropy: {}
        overlays.draw = lambda results: {}
    flag, what, *words = about["command"]
    sys.argv = [what if flag == "-m" else flag, *words]
    code: Any = 0
    try:
        if flag == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(what, {"__name__": "__main__"})
    except SystemExit as end:
        code = end.code or 0
        if not isinstance(code, int):
            raise
    # as at the end of an interpreter, which then frees every imported object: that takes longer than a small command
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def compose_once() -> None:
    """Load files and grammars that every composition needs."""
    import hydra

    from pde_train.conf_dir import conf_dir

    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        hydra.compose("config", ["name=test"])


def preload() -> None:
    """Import what commands and uploaders import; nothing of it starts a thread or computes."""
    import rich.table  # noqa: F401

    import pde_train
    from pde_train.tracking import uploader
    from pde_train.tracking.delivery import Store

    Store("").load()
    importlib.import_module("mlflow.store.tracking.sqlalchemy_store")  # which MLflow does where a database is opened
    uploader.subprocess = Child  # type: ignore[attr-defined, assignment]  # as much of the module as is used there
    copy_new_stores()
    keep_compositions()
    fork_workers()
    for module in pkgutil.walk_packages(pde_train.__path__, "pde_train."):
        if not module.name.endswith(".__main__"):
            importlib.import_module(module.name)
    compose_once()
    for end in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        if (what := end.peek()) and what[1].__module__ == "torch.library":
            end.atexit = False  # operators that a process need not unregister when it ends
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of tests
    preload()
    serve(int(sys.argv[-1]))

"""Processes beside the main one, and what they do together by torch.distributed.

They are started here, on one machine, or are the other tasks of a SLURM job (`pde_train.training.tasks`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection, get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch._C._distributed_c10d import FileStore, Store, TCPStore

from pde_train.errors import RunError
from pde_train.training import tasks

Serve = Callable[[Connection, torch.device], None]
"""What a worker does, at its end of the pipe and on its device, until the pipe is closed (EOFError)."""

DEAF_TO = (signal.SIGINT, signal.SIGTERM)
"""Signals that the main process answers, with a checkpoint, for all."""

PATIENCE = 3.0
"""Seconds in which a worker ends of itself, or its death becomes known."""


class Workers:
    """`size - 1` processes, each with a pipe to this one, and the process group of all, in which this one is rank 0.

    They are started here, or are tasks of this SLURM job that wait in the folder of its `meetings`. gloo on the CPU;
    nccl on GPUs, one a process. Whatever fails in a worker, or ends it, is a RunError here: before
    each of the two collectives this process makes sure that workers which it has started will take part, as nccl would
    wait forever.
    """

    def __init__(self, size: int, device: str, serve: Serve, meetings: Path | None = None):
        self.size, self.device, self.serve, self.meetings = size, device, serve, meetings
        self.pipes: list[Connection] = []
        self.processes: list[Any] = []
        self.folder: TemporaryDirectory[str] | None = None
        self._start()

    def restart(self) -> None:
        """End what the workers do, whatever it is, and have some that wait."""
        self.close()
        self._start()

    def _start(self) -> None:
        try:
            store = self._spawn() if self.meetings is None else self._gather(self.meetings)
            self.hear()
            _join(0, self.size, self.device, store, self.meetings is None)
        except BaseException:  # no worker outlives a start that failed, or was interrupted
            self.close()
            raise

    def _spawn(self) -> Store:
        """Start the workers on this machine."""
        self.folder = TemporaryDirectory(prefix="pde_train.")
        store = Path(self.folder.name) / "store"
        spawn = get_context("spawn")
        with _deaf():
            for rank in range(1, self.size):
                here, there = spawn.Pipe()
                arguments = (rank, self.size, self.device, torch.get_num_threads(), store, there, self.serve)
                process = spawn.Process(target=_work, args=arguments, daemon=True)
                self.pipes.append(here)
                process.start()
                self.processes.append(process)
                there.close()
        return FileStore(str(store), self.size)

    def _gather(self, folder: Path) -> Store:
        """Wait for the other tasks of the job."""
        host, told = socket.gethostname(), {"size": self.size, "device": self.device}
        try:
            store = TCPStore(host, 0, self.size, is_master=True, wait_for_workers=False)
            self.pipes = tasks.meet(
                folder, self.size, {**told, "threads": torch.get_num_threads(), "store": store.port}
            )
        except (OSError, dist.DistNetworkError) as error:
            raise RunError(
                f"the tasks of the job cannot meet at {host} ({error}): expected a name that every node resolves, or "
                "choose one node"
            ) from error
        return store

    def tell(self, messages: Sequence[Any]) -> None:
        """Send each worker its message."""
        with self._watched():
            for pipe, message in zip(self.pipes, messages, strict=True):
                pipe.send(message)

    def broadcast(self, tensor: Tensor) -> None:
        """Give the workers, who wait for it, this tensor."""
        with self._watched():
            if not all(process.is_alive() for process in self.processes):
                raise EOFError
            dist.broadcast(tensor, 0)

    def add_to(self, tensor: Tensor) -> None:
        """Add to this tensor those of all workers, once each has answered that it has one."""
        self.hear()
        with self._watched():
            dist.reduce(tensor, 0)

    def hear(self) -> None:
        """Wait until every worker has answered; an answer that says anything is what went wrong there."""
        for rank, pipe in enumerate(self.pipes, 1):
            with self._watched():
                connection.wait([pipe, *(process.sentinel for process in self.processes[rank - 1 : rank])])
                wrong = pipe.recv()
            if wrong:
                raise self._failure(f"process {rank} of {self.size}: {wrong}")

    def close(self) -> None:
        """End the workers."""
        for pipe in self.pipes:
            pipe.close()
        if dist.is_initialized():
            dist.destroy_process_group()
        for process in self.processes:
            process.join(PATIENCE)
            process.kill()
            process.join()
            process.close()
        if self.folder is not None:
            self.folder.cleanup()
        self.pipes, self.processes = [], []

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError, RuntimeError) as error:
            raise self._failure(
                f"the {self.size} processes that share the points lost touch ({error or type(error).__name__}): "
                "expected answers from all, go on with resume=true or choose accelerator=cpu"
            ) from error

    def _failure(self, otherwise: str) -> RunError:
        """What to say of a worker that did not end of itself, or where none has: the others fail for want of it."""
        for rank, pipe in enumerate(self.pipes, 1):
            with contextlib.suppress(EOFError, OSError):
                while pipe.poll():
                    if wrong := pipe.recv():
                        return RunError(f"process {rank} of {self.size}: {wrong}")
        codes: list[int] = []
        running = {process.sentinel for process in self.processes}
        while running and not codes:
            ended = connection.wait(running, PATIENCE)
            for process in self.processes:
                if process.sentinel in ended:
                    process.join(PATIENCE)  # its files are closed a moment before its exit code is there
            codes = [process.exitcode for process in self.processes if process.exitcode]
            running = running.difference(ended) if ended else set()
        if not codes:
            return RunError(otherwise)
        how = f"killed by signal {-codes[0]}" if codes[0] < 0 else f"exit code {codes[0]}"
        return RunError(
            f"one of the {self.size} processes that share the points has ended ({how}): expected it to stay, look for "
            "a lack of memory and go on with resume=true, or choose accelerator=cpu"
        )


def _work(rank: int, size: int, device: str, threads: int, store: Path, pipe: Connection, serve: Serve) -> None:
    """The life of a worker on this machine, which ends with the main process however that ends."""
    threading.Thread(target=_end_with_parent, args=(store,), daemon=True).start()
    limit_threads(threads)
    _serve(serve, pipe, rank, size, device, rank, lambda: FileStore(str(store), size), True)


def work_as_task(folder: Path, rank: int, index: int, serve: Serve) -> None:
    """The life of a task of a SLURM job that is not its first one: it works for the first one until that has ended.

    Args:
        folder: The folder of this job's meetings.
        rank: Of the task, 1 or more.
        index: Of the task among those of its node, and of its GPU where it sees those of all.
        serve: What a worker does.
    """

    def meeting(pipe: Connection, rank: int, told: dict[str, Any]) -> None:
        limit_threads(told["threads"])

        def store() -> Store:
            return TCPStore(told["host"], told["store"], told["size"], is_master=False)

        _serve(serve, pipe, rank, told["size"], told["device"], index, store, False)

    tasks.other_task(folder, rank, meeting)


def limit_threads(threads: int) -> None:
    """Let torch and numpy work with so many threads, in the main process and in workers alike."""
    torch.set_num_threads(threads)
    threadpool_limits(threads, "blas")  # of numpy: two threads on a busy machine wait for each other


def _serve(
    serve: Serve,
    pipe: Connection,
    rank: int,
    size: int,
    device: str,
    index: int,
    store: Callable[[], Store],
    local: bool,
) -> None:
    """Join the main process and serve it; what goes wrong here is said there."""
    place = torch.device(device)
    if device == "cuda":
        place = torch.device(device, index % torch.cuda.device_count())
        torch.cuda.set_device(place)
    try:
        pipe.send(None)
        _join(rank, size, device, store(), local)
        serve(pipe, place)
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the main process has closed its end
        pass
    except Exception as error:  # the main process says what went wrong here
        with contextlib.suppress(OSError):  # it may have been the end of the main process that went wrong here
            pipe.send(f"{type(error).__name__}: {error}")
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _end_with_parent(store: Path) -> None:
    parent: Any = parent_process()
    parent.join()
    shutil.rmtree(store.parent, ignore_errors=True)
    os._exit(1)


def _join(rank: int, size: int, device: str, store: Store, local: bool) -> None:
    """Form the process group; on one machine by its loopback interface."""
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
    wanted = {f"{library}_SOCKET_IFNAME": loopback for library in ("GLOO", "NCCL")} if local else {}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        backend = "nccl" if device == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Inside, processes are started that never hear Ctrl-C or SIGTERM; this one hears them afterwards."""
    resource_tracker.ensure_running()  # multiprocessing's own process, whose start would let them through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, DEAF_TO)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

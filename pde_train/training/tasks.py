"""The tasks of a SLURM job, on one node or several, as the processes that share the points of a run.

The first task trains. Where it needs workers, it writes into a folder that every node sees where it listens; the other
tasks wait for that file, connect and serve until the connection is closed, again and again, until the first task ends.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

OVER = "over"
"""The file that says that the first task has ended."""

SECONDS = 0.2
"""Between two looks at the folder."""


@contextlib.contextmanager
def first_task(folder: Path) -> Iterator[None]:
    """Inside, the other tasks of this job wait for work; afterwards they end.

    Args:
        folder: The folder of this job's meetings.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        yield
    finally:
        (folder / OVER).touch()


def other_task(folder: Path, rank: int, serve: Callable[[Connection, int, dict[str, Any]], None]) -> None:
    """What a task does that is not the first one: `serve` at every meeting, until the first task has ended.

    Args:
        folder: The folder of this job's meetings.
        rank: Of the task, 1 or more.
        serve: Called with a connection to the first task, the rank, and what the first task told everyone.
    """
    number = 0
    while not (folder / OVER).exists():
        file = _file(folder, number)
        if not file.exists():
            time.sleep(SECONDS)
            continue
        told: dict[str, Any] = json.loads(file.read_text())
        with Client((told["host"], told["port"]), authkey=bytes.fromhex(told["key"])) as pipe:
            pipe.send(rank)
            serve(pipe, rank, told)
        number += 1


def meet(folder: Path, size: int, told: Mapping[str, Any]) -> list[Connection]:
    """Wait for all other tasks.

    Args:
        folder: The folder of this job's meetings.
        size: The number of tasks, with this one.
        told: What every task must know.

    Returns:
        A connection to each, in the order of their ranks.
    """
    key, host = secrets.token_bytes(32), socket.gethostname()
    with Listener((host, 0), backlog=size, authkey=key) as listener:
        number = sum(1 for _ in folder.glob("meeting-*.json"))
        content = {**told, "host": host, "port": listener.address[1], "key": key.hex()}
        draft = folder / f"draft-{number}"
        draft.touch(mode=0o600)  # the key is for this user's processes alone
        draft.write_text(json.dumps(content))
        draft.replace(_file(folder, number))
        pipes: dict[int, Connection] = {}
        while len(pipes) < size - 1:
            with contextlib.suppress(AuthenticationError, EOFError, ConnectionError):  # a stranger
                pipe = listener.accept()
                pipes[pipe.recv()] = pipe
    return [pipes[rank] for rank in sorted(pipes)]


def _file(folder: Path, number: int) -> Path:
    return folder / f"meeting-{number}.json"

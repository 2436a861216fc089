"""Tracking stores that last as long as a test or a benchmark: a PostgreSQL server, an MLflow server."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UP_SECONDS = 120.0
"""Within which a server answers, on a busy machine."""


def postgres_programs() -> Path | None:
    """The folder of initdb and pg_ctl, None where PostgreSQL's server is not installed."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in reversed(folders) if (folder / "initdb").exists()), None)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def postgres() -> Iterator[str]:
    """The uri of an empty database of a server of its own; it keeps nothing and does not wait for the disk."""
    programs = postgres_programs()
    assert programs is not None, "PostgreSQL's server is not installed"
    port = free_port()
    # The server refuses to be root, and its user must get at its folder
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    if user:
        shutil.chown(folder, "postgres")

    def run(name: str, *words: str) -> None:
        subprocess.run(
            [*user, str(programs / name), *words], check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=120
        )

    data = str(folder / "data")
    settings = f"-p {port} -h 127.0.0.1 -k {folder} -c fsync=off -c synchronous_commit=off -c full_page_writes=off"
    try:
        run("initdb", "--pgdata", data, "--username", "tracker", "--auth", "trust", "--no-sync")
        run("pg_ctl", "start", "--pgdata", data, "--wait", "--log", str(folder / "log"), "--options", settings)
        try:
            yield f"postgresql://tracker@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "stop", "--pgdata", data, "--mode", "immediate")
    finally:
        shutil.rmtree(folder)


class Server:
    """`mlflow server`, with the settings of `make ui`, over a sqlite file in a folder; it may be killed."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        command = [str(Path(sys.executable).with_name("mlflow")), "server", "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}", "--port", str(self.port)]
        command += ["--artifacts-destination", str(self.folder / "served")]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, env={**os.environ, **quiet}, stdout=log, stderr=log, start_new_session=True
            )
        until = time.monotonic() + UP_SECONDS
        while time.monotonic() < until:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=1).read()
                return
            except OSError:
                time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"the MLflow server did not answer within {UP_SECONDS:g} s: see {self.folder}/server.log")

    def kill(self) -> None:
        """kill -9, workers too; nothing where it is not up."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextmanager
def server(folder: Path) -> Iterator[Server]:
    """An MLflow server that is up."""
    one = Server(folder)
    one.start()
    try:
        yield one
    finally:
        one.kill()

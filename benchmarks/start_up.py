"""From the shell to the first optimisation step, to the composed configuration and to the UI: seconds, warm."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from benchmarks import results

RUNS = 5


def until_line(command: list[str], marker: str, folder: Path) -> float:
    """Seconds from the start of a command to the output line that holds `marker`."""
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if marker in line:
                seconds = time.perf_counter() - began
                process.communicate(timeout=60)
                return seconds
    raise RuntimeError(f"{' '.join(command)} ended without {marker!r}")


def until_end(command: list[str], folder: Path) -> float:
    """Seconds that a command takes."""
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - began


def until_ui(folder: Path, port: int = 5987) -> float:
    """Seconds from the start of the MLflow server, with the settings of `make ui`, to its first answer."""
    command = [str(Path(sys.executable).with_name("mlflow")), "server", "--backend-store-uri", "sqlite:///mlflow.db"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    began = time.perf_counter()
    server = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while time.perf_counter() - began < 60:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).read()
                return time.perf_counter() - began
            except OSError:
                time.sleep(0.05)
        raise RuntimeError("the MLflow server did not answer within 60 s")
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def main() -> None:
    """Print median and range of every start, and write them down."""
    lines = []
    python = [sys.executable, "-m", "pde_train"]
    train = [*python, "model=two_layer", "method.steps=1", "diagnostics=none"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        until_end(train, folder)  # makes the store, warms the file cache
        until_end([*train, "method.compile=always"], folder)
        rows: dict[str, tuple[float, Callable[[], float]]] = {
            "first optimisation step, tracking=mlflow": (3.0, lambda: until_line(train, "training", folder)),
            "first optimisation step, tracking=none": (
                3.0,
                lambda: until_line([*train, "tracking=none"], "training", folder),
            ),
            "first compiled step, code kept, tracking=mlflow": (
                3.0,
                lambda: until_line([*train, "method.compile=always"], "training", folder),
            ),
            "--help": (0.4, lambda: until_end([*python, "--help"], folder)),
            "--cfg job": (1.0, lambda: until_end([*python, "--cfg", "job"], folder)),
            "MLflow UI answers": (6.0, lambda: until_ui(folder)),
        }
        print(f"{'seconds from the shell to':50} {'median':>7} {'min':>7} {'max':>7} {'goal':>7}")
        for what, (goal, measure) in rows.items():
            seconds = [measure() for _ in range(RUNS)]
            median = statistics.median(seconds)
            print(f"{what:50} {median:7.2f} {min(seconds):7.2f} {max(seconds):7.2f} {goal:7.1f}")
            lines.append([what, *(f"{value:.2f}" for value in (median, min(seconds), max(seconds))), goal])
    columns = "seconds from the shell to", "median", "min", "max", "goal"
    results.put("Start", "python -m benchmarks.start_up", results.table(columns, lines))


if __name__ == "__main__":
    main()

"""`python -m pde_train.study`: every part of the study, one sweep each, and then the report.

A part is the configuration `conf/experiment/study/<part>.yaml`. An interrupted study goes on with
the same command. Overrides such as `hydra/launcher=slurm_cpu` are passed on to every part.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from subprocess import STDOUT, Popen
from types import FrameType

from pde_train.errors import UsageError
from pde_train.guards import refuse_secrets
from pde_train.study.report import main as report

LAUNCHER = "hydra/launcher="
STACKED = (f"{LAUNCHER}stacked", "hydra.launcher.threads=1")
"""The launcher where the overrides name none: jobs of one shape train together in one process."""

ONE_DIMENSION = "pde=poisson_1d,biharmonic_1d"
TWO = "differentiator=reverse,finite_difference"
FEW = "seed=range(100,112)"
"""The seeds of `--small`: the fewest with which ten primary strata can be decided at 0.01."""


@dataclass(frozen=True)
class Part:
    """A part of the study.

    Attributes:
        minutes: How long it took on one core of two, in November 2026; it tells how much of the study is left.
        small: The overrides by which `--small` shortens it; None where `--small` leaves it out.
    """

    minutes: float
    small: Sequence[str] | None = None


PARTS = {
    "floor_deep": Part(21),
    "floor_2d": Part(19),
    "nonlinear": Part(16),
    "floor_adam_2d": Part(14),
    "floor_gauss_newton": Part(14),
    "floor_gauss_newton_2d": Part(13),
    "floor_gauss_newton_32": Part(13),
    "cross": Part(12),
    "order": Part(12),
    "floor_truncation": Part(9),
    "widths": Part(8),
    "floor_contour": Part(8),
    "networks": Part(8, [FEW, ONE_DIMENSION, "differentiator=taylor,finite_difference", "method.steps=300"]),
    "features": Part(8),
    "floor_adam": Part(7),
    "floor_optimal": Part(7),
    "floor": Part(6, [FEW, "pde=biharmonic_1d", "differentiator=taylor,finite_difference"]),
    "floor_accuracy": Part(6),
    "floor_float32": Part(6),
    "inside": Part(6),
    "random_features": Part(4, [FEW, ONE_DIMENSION, f"{TWO},finite_difference/1e-3"]),
    "accuracy": Part(4),
    "float32": Part(4, [FEW, TWO]),
    "activations": Part(4),
    "weight_ranges": Part(4),
    "causes": Part(4, [FEW, "differentiator.step=auto,1e-3"]),
    "optimal": Part(2, [FEW, "differentiator.accuracy=2,8"]),
    "contour": Part(1, [FEW]),
    "thresholds": Part(2, [FEW, ONE_DIMENSION, TWO]),
}
"""The parts, the longest first; `thresholds` is last, as it trains nothing."""

SMALL = Path("study-small")
"""The folder of the small study, which has a tracking store of its own, because its runs differ from the study's."""

BY_SIGNAL = 128
"""A command that a signal stopped has this exit code plus the number of the signal."""

STOPPED = BY_SIGNAL + signal.SIGINT
"""The exit code of a study that was stopped by Ctrl-C, or a part of which a signal stopped."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts of the study, some of them at the same time, and then write the report.

    Args:
        arguments: The words of the command; by default those of this process.

    Returns:
        The exit code: 0; 1 where a run of a part is not finished or there is no report; 2 for
        unusable arguments; 130 where Ctrl-C stopped the study or any signal a part; 143 where SIGTERM stopped it.
    """
    parser = argparse.ArgumentParser("python -m pde_train.study", description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help=f"fewer seeds, choices and steps, in {SMALL}/")
    parser.add_argument("--parts", help="some of them, with commas between")
    parser.add_argument("--at-once", type=int, default=2, help="parts that run at the same time (2)")
    parser.add_argument("words", nargs="*", help="overrides for every part, such as hydra/launcher=slurm_cpu")
    given = parser.parse_args(arguments)
    try:
        refuse_secrets(given.words)  # the overrides are printed
    except UsageError as error:
        print(error, file=sys.stderr)
        return error.code
    whole = [name for name, part in PARTS.items() if not given.small or part.small is not None]
    overrides, parts = given.words, given.parts.split(",") if given.parts else whole
    if unknown := [part for part in parts if part not in PARTS]:
        print(
            f"--parts {unknown[0]} is no part of the study: expected some of {', '.join(PARTS)}, correct it",
            file=sys.stderr,
        )
        return 2
    if left_out := [part for part in parts if part not in whole]:
        print(f"--small leaves out --parts {left_out[0]}: expected some of {', '.join(whole)}", file=sys.stderr)
        return 2
    here = SMALL if given.small else Path()
    uri = _value_of("tracking.uri", overrides)
    if given.small:
        here.mkdir(exist_ok=True)
        uri = uri or f"sqlite:///{here.absolute() / 'mlflow.db'}"
        overrides = [*overrides, f"hydra.sweep.dir={here / 'multirun'}", f"tracking.uri={uri}"]
    if not any(override.startswith(LAUNCHER) for override in overrides):
        overrides = [*STACKED, *overrides]
    shortened = {name: list(PARTS[name].small or []) if given.small else [] for name in parts}
    codes = _run({name: [*own, *overrides] for name, own in shortened.items()}, here, max(1, given.at_once))
    if (code := max(codes, default=0)) >= BY_SIGNAL:
        print("The study was stopped: the same command goes on where it was", file=sys.stderr)
        return code
    where = {"--uri": uri, "--experiment": _value_of("tracking.experiment", overrides)}
    told = [word for option, value in where.items() if value for word in (option, value)]
    codes.append(report([*told, "--folder", str(here / "report")]))
    return int(any(codes))


def terminate(number: int, frame: FrameType | None) -> None:
    """Stop the study as Ctrl-C does, by a signal that its sweeps have not heard."""
    raise SystemExit(BY_SIGNAL + number)


def _value_of(key: str, overrides: Sequence[str]) -> str | None:
    """The last value of a key among overrides; None where it is not there."""
    return next((o.partition("=")[2] for o in reversed(overrides) if o.startswith(f"{key}=")), None)


def _run(parts: Mapping[str, Sequence[str]], folder: Path, at_once: int) -> list[int]:
    """Run parts with their overrides; their exit codes. A signal that stops the study or a part begins no other one."""
    began, codes, stopped = time.monotonic(), list[int](), threading.Event()
    started: dict[str, float] = {}
    sweeps: list[Popen[bytes]] = []

    def begun(sweep: Popen[bytes]) -> None:
        sweeps.append(sweep)
        if stopped.is_set():  # a moment ago
            sweep.send_signal(signal.SIGTERM)

    def unless_stopped(name: str) -> int:
        started[name] = time.monotonic()
        code = STOPPED if stopped.is_set() else run_part(name, parts[name], folder, begun)
        if code >= BY_SIGNAL or code < 0:
            stopped.set()
        return STOPPED if stopped.is_set() else code

    with ThreadPoolExecutor(at_once) as pool:
        running = {pool.submit(unless_stopped, name): name for name in parts}
        try:
            for part in as_completed(running):
                codes.append(part.result())
                now = time.monotonic()
                ended = [name for future, name in running.items() if future.done()]
                left = minutes_left(parts, ended, {name: (now - at) / 60 for name, at in started.items()})
                if not stopped.is_set():
                    how_far = f"{len(codes)} of {len(parts)} parts in {now - began:.0f} s"
                    print(f"{how_far}, about {left:.0f} min left", flush=True)
        except KeyboardInterrupt:  # the parts that run have the same signal, and save what they are at
            stopped.set()
            codes.append(STOPPED)
        except SystemExit as stop:  # of `terminate`: they have not
            stopped.set()
            for sweep in sweeps:
                sweep.send_signal(signal.SIGTERM)
            codes.append(int(stop.code or 0))
    return codes


def minutes_left(parts: Collection[str], ended: Collection[str], minutes: Mapping[str, float]) -> float:
    """How long the rest of the study takes, if it goes on as fast as until now.

    Args:
        parts: All of them.
        ended: Those that are over.
        minutes: For how long each part that was begun has run, or how long ago it was begun.

    Returns:
        The minutes. A part that runs counts as done by what it has had of its `Part.minutes`.
    """
    whole = {name: PARTS[name].minutes for name in parts}
    done = sum(whole[name] if name in ended else min(minutes[name], whole[name]) for name in minutes)
    return max(minutes.values()) * (sum(whole.values()) / done - 1)


def run_part(
    part: str, overrides: Sequence[str], folder: Path, begun: Callable[[Popen[bytes]], None] = lambda _: None
) -> int:
    """Run one part as a sweep whose output goes to `study-logs/<part>.log`.

    Args:
        part: The name of the part.
        overrides: Hydra overrides of the sweep.
        folder: The folder of the study.
        begun: Called with the process of the sweep.

    Returns:
        The exit code of the sweep.
    """
    began = time.monotonic()
    log = folder / "study-logs" / f"{part}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pde_train", "--multirun", f"experiment=study/{part}", *overrides]
    print(f"{part}: python {' '.join(command[1:])}", flush=True)
    with log.open("w") as file:
        sweep = Popen(command, stdout=file, stderr=STDOUT)
        begun(sweep)
        code = sweep.wait()
    how = "done" if code == 0 else f"not complete (exit code {code}, see {log})"
    print(f"{part}: {how} after {time.monotonic() - began:.0f} s", flush=True)
    return code

"""What tracking costs: whole runs of 20 000 steps with everything logged, to each store and to none, as ratios."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import results
from benchmarks.stores import postgres, postgres_programs, server

ROUNDS = 5
STEPS = 20_000

CONFIGURATIONS = ("pde=biharmonic_1d method.compile=always", "pde=poisson_1d method.compile=always")
"""Compiled steps from code that is kept: as many steps in as little time as there is, where tracking weighs most."""


@contextmanager
def stores(folder: Path) -> Iterator[Mapping[str, str]]:
    """The words that choose each store, by its name."""
    with ExitStack() as stack:
        found = {"none": "tracking=none", "sqlite": f"tracking.uri=sqlite:///{folder / 'mlflow.db'}"}
        if postgres_programs() is None:
            print("no PostgreSQL server is installed: its row is missing", file=sys.stderr)
        else:
            found["PostgreSQL"] = f"tracking.uri={stack.enter_context(postgres())}"
        found["MLflow server"] = f"tracking.uri={stack.enter_context(server(folder)).uri}"
        yield found


def run(folder: Path, *words: str) -> tuple[float, float]:
    """Seconds of the process from its start to its end, and of the run in it."""
    where = folder / "run"
    command = [sys.executable, "-m", "pde_train", "model=two_layer", f"method.steps={STEPS}"]
    began = time.perf_counter()
    subprocess.run(
        [*command, f"hydra.run.dir={where}", *words],
        cwd=folder,
        check=True,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    seconds = time.perf_counter() - began
    for outbox in where.glob("tracking.jsonl"):
        delivered = max(m["position"] for m in json.loads((where / "tracking.delivered").read_text()).values())
        assert delivered == outbox.stat().st_size, "the store has not got everything"
    return seconds, json.loads((where / "result.json").read_text())["metrics"]["seconds_total"]


def main(arguments: list[str] | None = None) -> None:
    """Print a table: ratios are over the run without tracking of the same round."""
    parser = argparse.ArgumentParser("python -m benchmarks.tracking", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args(arguments).rounds
    lines: list[list[str]] = []
    with tempfile.TemporaryDirectory() as name, stores(Path(name)) as chosen:
        for configuration in CONFIGURATIONS:
            for words in chosen.values():  # makes tables, compiles
                run(Path(name), *configuration.split(), words)
            seconds: dict[str, list[tuple[float, float]]] = {store: [] for store in chosen}
            for k in range(rounds):
                order = list(chosen)[k % len(chosen) :] + list(chosen)[: k % len(chosen)]
                for store in order:
                    seconds[store].append(run(Path(name), *configuration.split(), chosen[store]))
            for store, measured in seconds.items():
                cells = [configuration, store]
                for which in range(2):
                    own = [one[which] for one in measured]
                    ratios = [a / b[which] for a, b in zip(own, seconds["none"], strict=True)]
                    cells += [spread(own, 2), "1" if store == "none" else spread(ratios, 3)]
                lines.append(cells)
                print(*cells, sep=" | ", flush=True)
    columns = "run", "store", "process, s", "process, ratio", "its run, s", "its run, ratio"
    told = f"{rounds} rounds; ratios are over the run without tracking of the same round."
    results.put("Tracking", "python -m benchmarks.tracking", f"{told}\n\n{results.table(columns, lines)}")


def spread(values: list[float], digits: int) -> str:
    """Median, and minimum...maximum."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}...{max(values):.{digits}f})"


if __name__ == "__main__":
    main()

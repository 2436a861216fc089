"""The table of other libraries beside ours, and how their scripts read errors."""

from typing import Any

import numpy as np
import pytest

from benchmarks import side_by_side
from benchmarks.references.training import Layers, Task, Watch, network


def run(errors: tuple[float, float], **others: Any) -> dict[str, Any]:
    named = {str(budget): error for budget, error in zip((15, 30), errors, strict=True)}
    return {"errors": named, "version": "1.2", "steps": 100, **others}


def test_a_row_has_medians_spreads_failed_runs_and_early_ends() -> None:
    runs: list[dict[str, Any]] = [
        run((3e-2, 2e-8)),
        run((1e-2, 1e-8), stopped=21.4),
        run((2e-2, 4e-8), stopped=None),
        {"failed": "no"},
    ]
    assert side_by_side.row("scimba ssbroyden", runs, (15, 30)) == (
        "| scimba 1.2 | SS-Broyden | 3, 1 failed | **2.0e-02** (1.0e-02 ... 3.0e-02) | "
        "**2.0e-08** (1.0e-08 ... 4.0e-08) | 100 | 1 of 3 after 21 s |"
    )
    assert side_by_side.row("scimba ssbroyden", runs[3:], (15, 30)) == (
        "| scimba | SS-Broyden | 0, 1 failed | - | - | - | - |"
    )


def test_every_run_of_the_repository_has_a_row() -> None:
    for result in side_by_side.results():
        assert result["who"] in side_by_side.OF[result["problem"]]


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    clock = iter((100.0, 101.0, 117.0, 118.0))
    monkeypatch.setattr("benchmarks.references.training.spent", lambda: next(clock))
    x = np.linspace(-1, 1, 5)[:, None]
    layers = [(np.ones((2, 1)), np.zeros(2)), (np.ones((1, 2)), np.zeros(1))]
    task = Task("beam", x, x, layers, x, network(layers, x), 0.0, (15, 30), 0, False)
    watch = Watch(task)
    watch.start()
    return watch


def scaled(factor: float) -> Layers:
    return [(np.ones((2, 1)), np.zeros(2)), (factor * np.ones((1, 2)), np.zeros(1))]


def test_the_error_after_a_budget_is_the_first_one_measured_after_it(watch: Watch) -> None:
    assert not watch.see(scaled(3), 25)
    assert not watch.see(scaled(2), 50)
    assert not watch.see(scaled(np.nan), 75)  # ended by itself: what was finite last
    watch.end()
    assert watch.errors == pytest.approx({"15": 1.0, "30": 1.0})
    assert watch.steps == 50

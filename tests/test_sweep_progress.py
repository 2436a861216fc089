"""What a sweep says of its progress while its cells are trained."""

import threading
from collections import Counter
from pathlib import Path

import pytest

from pde_train.overrides import Overrides
from pde_train.run_folder import Status
from pde_train.runs.result import Result
from pde_train.sweeps import progress
from pde_train.sweeps.grid import Cell


@pytest.mark.parametrize(
    ("ended", "running", "done", "seconds", "said"),
    [
        ({Status.FINISHED: 6}, 2, 6, 60.0, "12 of 48 cells done, 2 running, about 6 min left"),
        (
            {Status.FINISHED: 11, Status.FAILED: 1},
            1,
            0,
            20.0,
            "11 of 48 cells done, 1 running, 1 failed, about 60 s left",
        ),
        ({Status.FINISHED: 1}, 0, 0, 600.0, "1 of 48 cells done, about 7.8 h left"),
        ({Status.INTERRUPTED: 48}, 0, 0, 600.0, "0 of 48 cells done, 48 interrupted, about 0 s left"),
    ],
)
def test_a_line_counts_cells_and_extrapolates(
    ended: dict[Status, int], running: int, done: int, seconds: float, said: str
) -> None:
    assert progress.line(Counter(ended), running, 48, done, seconds) == said


def test_cells_that_end_are_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three cells, one of which an earlier launch left interrupted: one ends, then both others, one of them failed."""
    monkeypatch.setattr(progress, "SECONDS", 0.01)
    monkeypatch.setattr(progress, "SHARE", 1.0)
    spoken = threading.Semaphore(0)
    lines: list[str] = []

    def info(form: str, said: str) -> None:
        lines.append(form % said)
        spoken.release()

    monkeypatch.setattr(progress.log, "info", info)
    cells = [Cell(Overrides(), str(i), tmp_path / str(i), {}) for i in range(3)]
    cells[1].folder.mkdir()
    Result(Status.INTERRUPTED).write(cells[1].folder)
    with progress.said(cells, done=1):
        for some in ([(0, Status.FINISHED)], [(1, Status.FINISHED), (2, Status.FAILED)]):
            for i, status in some:
                cells[i].folder.mkdir(exist_ok=True)
                Result(status).write(cells[i].folder)
            assert spoken.acquire(timeout=10)
        while "3 of 4 cells done, 1 failed" not in lines[-1]:  # the two may be seen one after the other
            assert spoken.acquire(timeout=10)
    assert lines[0].startswith("2 of 4 cells done, about")
    assert not any("interrupted" in line for line in lines)
    assert len(lines) <= 3

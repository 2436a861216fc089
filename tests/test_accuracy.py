"""The rows of benchmarks/ACCURACY.md that take seconds reach their errors still: `make accuracy WORDS=--quick`."""

import pytest

from benchmarks import accuracy


def test_errors_are_as_small_as_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    good = accuracy.quick()
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == list(accuracy.QUICK)
    assert good, lines


def test_an_error_that_grew_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(accuracy, "QUICK", {"bratu newton": ("model.features=10", 1e-11)})
    with pytest.raises(SystemExit, match="an error is larger than it was"):
        accuracy.main(["--quick"])
    assert "bratu newton: error" in capsys.readouterr().out


def test_rows_have_names_of_their_own_and_every_quick_one_is_among_them() -> None:
    assert len(accuracy.EVERY) == len(accuracy.ROWS) + len(accuracy.DERIVATIVES) + len(accuracy.FIELD)
    assert set(accuracy.QUICK) <= set(accuracy.EVERY)


def test_a_row_says_when_it_ended_and_how_exact_its_reference_is(monkeypatch: pytest.MonkeyPatch) -> None:
    run = {"row": "bratu newton", "loss": 1e-8, "held_out": 1e-4, "steps": 5, "parameters": 500, "seconds": 2.3}
    runs = [{**run, "errors": {"end": error}, "reference": 4e-6} for error in (1e-5, 3e-5, 2e-5)]
    monkeypatch.setattr(accuracy, "results", lambda: runs)
    (line,) = accuracy.table(accuracy.FIELD)[2:]
    assert "| 3 | 2 s: **2.0e-05** (1.0e-05 ... 3.0e-05); reference 4e-06 | 1.0e-08 |" in line

import csv
import io
import re

import pytest

from pde_train import table
from pde_train.cli import _close_sweep
from pde_train.errors import RunError
from pde_train.results import Result
from pde_train.sweep import Sweep
from pde_train.tracking.none import NoTracker


def result(pde, how, seed=0, **metrics):
    overrides = ["experiment=first_look", f"pde={pde}", f"differentiator={how}", f"seed={seed}"]
    found = {"spectrum/max": 156.0, "error_l2": 1e-8, **metrics}
    return Result("finished", overrides, {"pde": pde, "model": "mlp", "differentiator": how}, "", found)


RESULTS = [result(pde, how) for pde in ("poisson_1d", "biharmonic_1d") for how in ("reverse", "finite_difference/1e-3")]


def test_results_that_differ_only_in_the_differentiator_are_a_pair():
    grouped = table.pairs(RESULTS)
    assert {title: list(lines) for title, lines in grouped.items()} == {
        "poisson_1d": ["reverse", "finite_difference/1e-3"],
        "biharmonic_1d": ["reverse", "finite_difference/1e-3"],
    }
    assert next(iter(table.pairs([*RESULTS, result("poisson_1d", "reverse", seed=1)]))) == "poisson_1d, seed=0"
    assert list(table.pairs(RESULTS[:1])) == ["poisson_1d, mlp"]


@pytest.mark.parametrize(("width", "together"), [(table.WIDE, True), (80, False)])
def test_no_number_is_cut_on_any_terminal(capsys, monkeypatch, width, together):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(width))
    table.show(table.pairs([result("poisson_1d", how, error_l2=1.23e-101) for how in ("reverse", "finite_difference")]))
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert shown.count("1.23e-101") == 2
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width
    assert any(line.count("1.23e-101") == 2 for line in shown.splitlines()) is not together


def test_a_number_that_is_missing_or_nan_is_a_dash():
    text = table.markdown_table(table.pairs([result("poisson_1d", "reverse", residual=float("nan"), seconds=None)]))
    assert text.splitlines()[2].count(" - ") == 6


def test_the_csv_table_keeps_every_digit_and_survives_brackets():
    one = result("poisson_1d", "reverse", error_l2=1 / 3)
    other = result("poisson_1d", "reverse")
    one.overrides.append("model.hidden=[4,3]")
    rows = list(csv.DictReader(io.StringIO(table.csv_table(table.pairs([one, other])))))
    assert rows[0]["run"] == "hidden=[4,3]"
    assert float(rows[0]["error_l2"]) == 1 / 3


def opened(folder):
    sweep = Sweep()
    sweep._folder, sweep._tracker = folder, NoTracker()
    Sweep.opened = sweep


def test_a_job_without_a_result_counts_as_failed(tmp_path, capsys):
    for name in ("0", "1"):
        (tmp_path / name / ".hydra").mkdir(parents=True)
    RESULTS[0].write(tmp_path / "0")
    opened(tmp_path)
    assert _close_sweep() == 1
    assert "failed: : the run left no result" in capsys.readouterr().out
    assert _close_sweep() == 0  # a sweep is closed once


def test_a_table_that_cannot_be_written_is_a_failure(tmp_path, capsys):
    (tmp_path / "0" / ".hydra").mkdir(parents=True)
    RESULTS[0].write(tmp_path / "0")
    (tmp_path / "table.csv").mkdir()
    opened(tmp_path)
    assert _close_sweep() == 1
    assert "table.csv was to be written" in capsys.readouterr().err


def test_a_torn_result_is_one_sentence(tmp_path):
    (tmp_path / "result.json").write_text('{"status": "fin')
    with pytest.raises(RunError, match=r"result.json is not the result of a run .* remove it to run again"):
        Result.read(tmp_path)

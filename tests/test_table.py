"""Tables and overlays of results that never ran."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pde_train.errors import RunError
from pde_train.run_folder import Status
from pde_train.runs import tables
from pde_train.runs.result import Result
from pde_train.sweeps import overlays


def result(
    pde: str,
    how: str,
    seed: int = 0,
    curves: dict[str, Any] | None = None,
    overrides: Sequence[str] = (),
    **metrics: float | None,
) -> Result:
    words = ["experiment=first_look", f"pde={pde}", f"differentiator={how}", f"seed={seed}", *overrides]
    found = {"spectrum/max": 156.0, "error_l2": 1e-8, **metrics}
    choices = {"pde": pde, "model": "mlp", "differentiator": how}
    return Result(Status.FINISHED, words, choices, "", found, curves=curves or {})


PAIRS = [result(pde, how) for pde in ("poisson_1d", "biharmonic_1d") for how in ("reverse", "finite_difference/1e-3")]


def grouped(results: list[Result]) -> tables.Pairs:
    return tables.medians(tables.groups(results))


def test_results_that_differ_only_in_the_differentiator_are_a_pair() -> None:
    assert {title: list(lines) for title, lines in tables.groups(PAIRS).items()} == {
        "poisson_1d": ["reverse", "finite_difference/1e-3"],
        "biharmonic_1d": ["reverse", "finite_difference/1e-3"],
    }
    assert list(tables.groups(PAIRS[:1])) == ["poisson_1d, mlp"]


def test_seeds_of_one_cell_are_one_median() -> None:
    errors = [3e-8, 1e-8, 2e-8]
    cells = [result("poisson_1d", "reverse", seed, error_l2=e) for seed, e in enumerate(errors)]
    cells.append(result("poisson_1d", "finite_difference", 0, error_l2=1e-3))
    ((_, lines),) = grouped(cells).items()
    assert lines["reverse"].metrics["error_l2"] == 2e-8
    rows = list(csv.DictReader(io.StringIO(tables.csv_table(tables.groups(cells)))))
    assert [float(row["error_l2"]) for row in rows] == [*errors, 1e-3]
    assert [row["seed"] for row in rows] == ["0", "1", "2", "0"]


def test_learnt_numbers_are_columns_of_every_table(capsys: pytest.CaptureFixture[str]) -> None:
    learnt: dict[str, Any] = {"number/k": 0.25, "interval/k/lower": 0.125, "interval/k/upper": 0.5}
    cells = [result("poisson_1d", "reverse", seed, **learnt) for seed in range(2)]
    tables.show(grouped(cells))
    assert "0.25" in capsys.readouterr().out
    heading, _, row = tables.markdown_table(grouped(cells)).splitlines()
    assert dict(zip(heading.split(" | "), row.split(" | "), strict=True))["k"] == "0.25"
    (first, _) = csv.DictReader(io.StringIO(tables.csv_table(tables.groups(cells))))
    assert [float(first[name]) for name in learnt] == [0.25, 0.125, 0.5]
    assert "k" not in tables.columns_of(grouped(PAIRS))


@pytest.mark.parametrize(("width", "together"), [(tables.WIDE, True), (80, False)])
def test_no_number_is_cut_on_any_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int, together: bool
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(width))
    tables.show(grouped([result("poisson_1d", how, error_l2=1.23e-101) for how in ("reverse", "finite_difference")]))
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert shown.count("1.23e-101") == 2
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width
    assert any(line.count("1.23e-101") == 2 for line in shown.splitlines()) is not together


def test_a_number_that_is_missing_or_nan_is_a_dash() -> None:
    text = tables.markdown_table(grouped([result("poisson_1d", "reverse", residual=float("nan"), seconds=None)]))
    assert text.splitlines()[2].count(" - ") == 7  # with that of no flags


def test_the_csv_table_keeps_every_digit_and_survives_brackets() -> None:
    one = result("poisson_1d", "reverse", error_l2=1 / 3, overrides=["model.hidden=[4,3]"])
    rows = list(csv.DictReader(io.StringIO(tables.csv_table(tables.groups([one, result("poisson_1d", "reverse")])))))
    assert rows[0]["run"] == "hidden=[4,3]"
    assert float(rows[0]["error_l2"]) == 1 / 3


def test_curves_of_seeds_are_a_median_in_a_band() -> None:
    steps = np.arange(10)
    cells = [
        result("poisson_1d", how, seed, {"loss": [(int(k), (seed + 1) * scale * 0.5**k) for k in steps]})
        for how, scale in (("reverse", 1.0), ("finite_difference", 10.0))
        for seed in range(3)
    ]
    axes = overlays.draw(cells)["loss"].axes[0]
    for line, scale in zip(axes.lines, (1.0, 10.0), strict=True):
        np.testing.assert_allclose(np.asarray(line.get_ydata()), 2 * scale * 0.5**steps)
    for band, scale in zip(axes.collections, (1.0, 10.0), strict=True):
        heights = np.asarray(band.get_paths()[0].vertices)[:, 1]
        assert (heights.min(), heights.max()) == pytest.approx((scale * 0.5**9, 3 * scale))


def test_two_swept_keys_are_a_map_for_each_way_of_taking_derivatives() -> None:
    cells = [
        result("poisson_1d", how, seed, overrides=[f"optimizer.lr={lr}", f"model.width={w}"], error_l2=lr * w + seed)
        for how in ("reverse", "finite_difference")
        for lr in (1, 2)
        for w in (10, 20, 30)
        for seed in (0, 1, 2)
    ]
    figure = overlays.draw(cells)["map"]
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert len(images) == 2
    for image in images:
        np.testing.assert_allclose(np.asarray(image.get_array()), np.log10([[11, 21, 31], [21, 41, 61]]))


def test_a_torn_result_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"status": "fin')
    with pytest.raises(RunError, match=r"result.json is not the result of a run .* remove it to run again"):
        Result.read(tmp_path)


@pytest.mark.parametrize("rates", [("1e-2", "1e-3", "1"), ("2", "10", "1e-1")])
def test_a_map_has_numbers_in_order_of_their_size(rates: tuple[str, str, str]) -> None:
    cells = [
        result("poisson_1d", "reverse", overrides=[f"optimizer.lr={lr}", f"model.width={w}"], error_l2=float(lr) * w)
        for lr in rates
        for w in (100, 20, 3)
    ]
    axes = overlays.draw(cells)["map"].axes[0]
    shown = [[label.get_text() for label in labels] for labels in (axes.get_yticklabels(), axes.get_xticklabels())]
    assert shown == [sorted(rates, key=float), ["3", "20", "100"]]
    expected = np.log10(np.outer(sorted(map(float, rates)), [3, 20, 100]))
    np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), expected)
    assert [text.get_text() for text in axes.texts] == [f"{10**v:.1e}" for v in expected.ravel()]


def test_nothing_of_a_map_is_cut() -> None:
    cells = [result(pde, how) for pde in ("poisson_1d", "biharmonic_1d") for how in ("reverse", "finite_difference")]
    figure = overlays.draw(cells)["map"]
    figure.draw_without_rendering()
    width, height = figure.bbox.size
    for axes in figure.axes:
        box = axes.get_tightbbox()
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height


FAILED = Result(Status.FAILED, ["pde=poisson_1d", "differentiator=taylor", "model.activation=relu"], error="a | b\nc")


def test_cells_that_did_not_finish_stay_in_titles_and_maps() -> None:
    tanh = [result("poisson_1d", how, overrides=["model.activation=tanh"]) for how in ("reverse", "taylor")]
    drawn = overlays.draw([*tanh, FAILED])["map"]
    assert np.isnan(drawn.axes[0].images[0].get_array().filled(np.nan)).sum() == 2
    assert "grey" in drawn.get_suptitle()
    assert all("activation=tanh" in title for title in tables.groups([*tanh, FAILED]))


def test_only_failed_cells_draw_nothing_and_are_named_with_their_sentence() -> None:
    assert overlays.draw([FAILED, FAILED]) == {}
    assert tables.markdown_table(grouped([FAILED])) == ""
    text = tables.markdown_unfinished([FAILED, FAILED, PAIRS[0]], 1)
    assert "**2 of 3 cells are not finished**" in text
    assert r"a \| b c |" in text
    assert "1 more" in text
    assert tables.markdown_unfinished(PAIRS, 40) == ""


def test_what_bands_mean_is_said_and_long_titles_are_broken() -> None:
    long = [f"model.{key}=123456" for key in ("width", "features", "frequency", "activation")]
    curves = {"loss": [(0, 1.0), (1, 0.5)]}
    cells = [result("poisson_1d", "reverse", s, curves, long if s < 2 else ()) for s in range(3)]
    figure = overlays.draw(cells)["loss"]
    assert "medians over up to 2 seeds" in figure.get_suptitle()
    assert "\n" in figure.axes[0].get_title()
    assert "seeds" not in overlays.draw(cells[:1])["loss"].get_suptitle()

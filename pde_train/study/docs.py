"""`python -m pde_train.study.docs`: write the verdicts of a report into README.md and docs/, as text that is generated.

The blocks between `<!-- verdicts -->` and `<!-- /verdicts -->` come from `docs/verdicts.json`, which holds the primary
strata of the report's `verdicts.json`. A test makes them again, so that they cannot drift.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pde_train.errors import UsageError

SHOWN = ("2-answer", "2-levels", "2-frontier", "3-spectra", "5-gaps", "6-cross", "9-predictors")
"""The figures of the report that README.md and `docs/study.md` show."""

RUNS = Path("docs/study-runs.csv.gz")
"""The run table that the verdicts follow from, see `pde_train.study.published`."""

Numbers = Mapping[str, Any]
"""The content of `docs/verdicts.json`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write `docs/verdicts.json`, the run table, the generated blocks, and the figures that are shown.

    Args:
        arguments: The words of the command; by default those of this process.

    Returns:
        The exit code: 0, or 2 without a report.
    """
    parser = argparse.ArgumentParser("python -m pde_train.study.docs", description=__doc__.partition("\n")[0])
    parser.add_argument("report", type=Path, nargs="?", default=Path("report"), help="the folder of a report (report)")
    given = parser.parse_args(arguments)
    if not (given.report / "verdicts.json").exists():
        print(f"{given.report} has no verdicts.json: expected a report, make it by make report", file=sys.stderr)
        return UsageError.code
    numbers = primary(json.loads((given.report / "verdicts.json").read_text()))
    Path("docs/verdicts.json").write_text(json.dumps(numbers, indent=1) + "\n")
    shutil.copy(given.report / "runs.csv.gz", RUNS)
    for page, block in BLOCKS.items():
        Path(page).write_text(with_block(Path(page).read_text(), block(numbers)))
    for name in SHOWN:
        if (figure := given.report / f"{name}.png").exists():
            shutil.copy(figure, f"docs/images/study-{name}.png")
    return 0


def primary(report: Mapping[str, Any]) -> Numbers:
    """What the documents state of a report: its verdicts and their primary strata, without the descriptive ones.

    Args:
        report: The content of the report's `verdicts.json`.

    Returns:
        The same with fewer keys.
    """
    kept = ("comparison", "when", "estimate", "lost", "adjusted", "outcome")
    verdicts = [
        {
            **{k: v[k] for k in ("number", "title", "word")},
            "strata": [{k: s[k] for k in kept} for s in v["strata"] if s["when"]],
        }
        for v in report["verdicts"]
    ]
    return {"about": report["about"], "verdicts": verdicts}


def overview(numbers: Numbers) -> str:
    """A Markdown table with a row for each hypothesis: its verdict, and in how many primary strata it is what."""
    rows = ["| claim | verdict | its primary strata |", "|---|---|---|"]
    for v in numbers["verdicts"]:
        outcomes = [s["outcome"] for s in v["strata"]]
        counts = ", ".join(f"{outcomes.count(o)} {o}" for o in dict.fromkeys(outcomes))
        rows.append(f"| {v['number']}. {v['title']} | **{v['word']}** | {counts} |")
    return "\n".join(rows)


def details(numbers: Numbers) -> str:
    """The overview, and below it a table for each hypothesis with every primary stratum."""
    about = numbers["about"]
    commits = ", ".join(commit[:7] for commit in about["commits"])
    parts = [
        f"{about['distinct'] - about['views']} runs, commits {commits}. Estimates are medians over pairs, or "
        "correlations inside design cells, with 95 % intervals; p is adjusted (Holm).",
        overview(numbers),
    ]
    for v in numbers["verdicts"]:
        rows = ["| | estimate (95 % interval) | n | lost | p | |", "|---|---|---|---|---|---|"]
        named = ""
        for s in v["strata"]:
            if s["comparison"] != named:
                named = s["comparison"]
                rows.append(f"| *{named}* | | | | | |")
            lost = ", ".join(f"{count} {why}" for why, count in s["lost"].items()) or "0"
            p = "" if s["adjusted"] is None else f"{s['adjusted']:.1g}"
            e = s["estimate"]
            rows.append(f"| {s['when']} | {_interval(e)} | {e['n']} | {lost} | {p} | {s['outcome']} |")
        parts += [f"**{v['number']}. {v['title']}: {v['word']}**", "\n".join(rows)]
    return "\n\n".join(parts)


def _interval(estimate: Mapping[str, Any]) -> str:
    if estimate["value"] is None:
        return "-"
    ends = (f"{end:+.2f}" if end is not None else "-" for end in (estimate["low"], estimate["high"]))
    return f"{estimate['value']:+.2f} ({' ... '.join(ends)})"


BLOCKS = {"README.md": overview, "docs/study.md": details}
"""The pages with a generated block, and what makes it."""


def with_block(page: str, block: str) -> str:
    """A page whose generated block is another one.

    Args:
        page: The text of the page.
        block: The text between the marks.

    Returns:
        The text.

    Raises:
        UsageError: The page has not exactly one pair of marks.
    """
    found, count = re.subn(
        r"(<!-- verdicts -->\n).*?(<!-- /verdicts -->)", lambda m: f"{m[1]}{block}\n{m[2]}", page, flags=re.S
    )
    if count != 1:
        raise UsageError(f"a page has {count} blocks between <!-- verdicts --> and <!-- /verdicts -->: expected one")
    return found


if __name__ == "__main__":
    sys.exit(main())

"""benchmarks/RESULTS.md: a section for each benchmark, written anew whenever it runs, with the date and the machine."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "RESULTS.md"

HEADING = """# What the benchmarks measured

Every section is written by its command, in place of what stood there before. Ratios are within a round: what is
compared ran one after another on the same machine.
"""


def put(title: str, command: str, text: str, file: Path = RESULTS) -> None:
    """Write a section, in the place of the one with the same title where there is one.

    Args:
        title: Of the section.
        command: What makes it.
        text: Markdown below the line that says when and where it was measured.
        file: The results.
    """
    heading, *sections = re.split(r"^## ", file.read_text() if file.exists() else HEADING, flags=re.MULTILINE)
    by_title = {section.partition("\n")[0]: section for section in sections}
    by_title[title] = f"{title}\n\n`{command}`, {where()}\n\n{text.strip()}\n\n"
    file.write_text(heading.strip() + "\n\n" + "".join(f"## {section}" for section in by_title.values()).strip() + "\n")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def where() -> str:
    """Date, commit and machine."""
    changes = " with changes" if git("status", "--porcelain", "--", "pde_train", "conf") else ""
    return (
        f"{date.today()}, commit {git('rev-parse', '--short', 'HEAD')}{changes}: {cpu()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, torch {version('torch')}."
    )


def cpu() -> str:
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

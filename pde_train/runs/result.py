"""What one run leaves behind in its folder for a sweep's table, for scripts, and for a later resume."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pde_train.errors import RunError
from pde_train.overrides import Overrides
from pde_train.run_folder import RESULT_FILE, Status, write_whole

if TYPE_CHECKING:
    from pydantic import TypeAdapter


@dataclass(frozen=True)
class Result:
    """How one run ended, kept as `result.json` in its folder.

    Attributes:
        status: Finished, failed, interrupted or pruned.
        overrides: The words of the command that made it.
        choices: The choice of every configuration group.
        config_hash: See `pde_train.runs.provenance.config_hash`.
        metrics: The last value of each metric; None where it is no finite number.
        versions: Of Python, this package and the libraries that numbers depend on.
        error: Why it did not finish.
        notes: Words about the metrics, such as how a spectrum was taken.
        entropy: The group by which entropies were taken.
        curves: A metric at some steps, as (step, value).
        comparison: The numbers of the last comparison by differentiator.
        folder: Where it was read from.
    """

    status: Status
    overrides: list[str] = field(default_factory=list)
    choices: dict[str, str] = field(default_factory=dict)
    config_hash: str = ""
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None
    notes: Mapping[str, str] = field(default_factory=dict)
    entropy: Mapping[str, Any] = field(default_factory=dict)
    curves: Mapping[str, Sequence[tuple[int, float | None]]] = field(default_factory=dict)
    comparison: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def words(self) -> Overrides:
        """The overrides, parsed."""
        return Overrides.parse(self.overrides)

    @property
    def is_finished(self) -> bool:
        """Whether the run came to its end."""
        return self.status == Status.FINISHED

    @property
    def flags(self) -> str:
        """What a reader must know of the numbers, see `pde_train.runs.flags`; empty where there is nothing."""
        return self.notes.get("flags", "").replace("none", "")

    def write(self, folder: Path) -> None:
        """Write it whole or not at all; numbers that JSON does not know (nan, inf) become null."""
        plain = {k: v for k, v in asdict(self).items() if k != "folder"} | {
            "metrics": {k: _finite(v) for k, v in self.metrics.items()},
            "curves": {k: [(step, _finite(v)) for step, v in curve] for k, curve in self.curves.items()},
            "comparison": {k: {name: _finite(v) for name, v in n.items()} for k, n in self.comparison.items()},
        }
        write_whole(folder / RESULT_FILE, f"{json.dumps(plain, indent=1)}\n".encode())

    @classmethod
    def read(cls, folder: Path) -> Result | None:
        """The result in a folder, None where there is none. RunError where it cannot be read."""
        file = folder / RESULT_FILE
        if not file.exists():
            return None
        try:
            result = _adapter().validate_python(json.loads(file.read_text()))
            if not result.status.is_end:
                raise ValueError(f"its status is {result.status}")
            return replace(result, folder=folder)
        except (OSError, ValueError, TypeError) as error:
            reason = "; ".join(str(error).strip().splitlines()[:2])
            raise RunError(
                f"{file} is not the result of a run ({reason}): expected one, remove it to run again"
            ) from error

    @classmethod
    def of_a_cell(cls, folder: Path) -> Result | None:
        """The same for one of many: a result that cannot be read is that of a run that has failed."""
        try:
            return cls.read(folder)
        except RunError as error:
            return cls(Status.FAILED, error=str(error), folder=folder)


@cache
def _adapter() -> TypeAdapter[Result]:
    """What checks the fields of a result that is read."""
    from pydantic import TypeAdapter

    return TypeAdapter(Result)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None

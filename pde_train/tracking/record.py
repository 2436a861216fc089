"""What a run has measured: every metric by step and every spectrum, buffered for the tracking store."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pde_train.entropy import Entropy
from pde_train.singular_values import Spectrum
from pde_train.tracking.base import AS_TAGS, Row, Tracker

log = logging.getLogger(__name__)

FLUSH_ROWS = 500
FLUSH_SECONDS = 10.0

EVERY_LOSS, THEN = 2000, 10
"""A store has the loss of each step up to EVERY_LOSS, then of each THEN-th, and the last one: 20 runs of 15,000 steps
were 300,000 rows, more than any page shows. `history.csv` has all."""

FLAGS = "flag/"
"""Begins the names of metrics that are 0 or 1: a store has the tag `flags`."""

CURVE = 200
"""Points of a curve that a sweep draws."""

COMPARE = "compare"
"""First part of the metrics of a comparison."""


@dataclass(frozen=True)
class Measured:
    """What a comparison measured of one differentiator.

    Attributes:
        numbers: By quantity, see `pde_train.diagnostics.comparison.compare`.
        spectrum: The singular values that it gave.
    """

    numbers: Mapping[str, float]
    spectrum: Spectrum


class Record:
    """Everything that one run has measured, by step; metrics are sent to the tracker in batches.

    Args:
        tracker: Where metrics go.
        entropy: Turns a spectrum into metrics.
        config_hash: Names the run, see `pde_train.runs.provenance.config_hash`.

    Attributes:
        series: The value of each metric by step.
        spectra: The spectrum by step.
        comparison: What the last comparison measured, by differentiator.
        tags: Words about the metrics, such as how a spectrum was taken.
    """

    def __init__(self, tracker: Tracker, entropy: Entropy, config_hash: str = ""):
        self.config_hash = config_hash
        self._tracker = tracker
        self._entropy = entropy
        self._unsent: list[Row] = []
        self._flushed = time.monotonic()
        self.series: dict[str, dict[int, float]] = {}
        self.spectra: dict[int, Spectrum] = {}
        self.comparison: dict[str, Measured] = {}
        self.tags: dict[str, str] = {}
        self._tensors: dict[str, dict[str, Tensor]] = {}

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Keep metrics of one step."""
        for key, value in values.items():
            self._keep(key, step, [float(value)])
        self._flush_when_due()

    def losses(self, first_step: int, values: Tensor) -> None:
        """Keep the losses of consecutive steps, (k,)."""
        self._keep("loss", first_step, values.tolist())
        self._flush_when_due()

    def _keep(self, key: str, first_step: int, values: Iterable[float]) -> None:
        series = self.series.setdefault(key, {})
        new = {step: value for step, value in enumerate(values, first_step) if step not in series}
        series |= new
        self._unsent += [(key, value, step) for step, value in new.items() if is_for_store(key, step)]

    def _flush_when_due(self) -> None:
        waited = time.monotonic() - self._flushed
        if waited > FLUSH_SECONDS or len(self._unsent) >= FLUSH_ROWS:
            self.flush()

    def spectrum(self, step: int, spectrum: Spectrum) -> None:
        """Keep the singular values of one step, and every entropy of them."""
        self.spectra[step] = spectrum
        self.tags["spectrum_method"] = spectrum.method
        if spectrum.method != "dense":
            log.warning(
                "the spectrum at step %d is by an adaptive %s SVD: nothing below %.1e s_max is resolved, what would "
                "need it is nan; a larger diagnostics.max_dense takes it dense",
                step,
                spectrum.method,
                spectrum.resolution,
            )
        metrics = self._entropy.metrics(spectrum.values, spectrum.resolution)
        self.log(step, metrics | {"spectrum/resolution": spectrum.resolution})

    def compared(self, step: int, name: str, measured: Measured) -> None:
        """Keep what a comparison measured of one differentiator, with the entropies of its spectrum.

        In the store they are metrics `compare/<name>/...`.
        """
        spectrum = measured.spectrum
        numbers = {**measured.numbers, **self._entropy.metrics(spectrum.values, spectrum.resolution)}
        self.comparison[name] = Measured(numbers, spectrum)
        self.log(step, {f"{COMPARE}/{name}/{quantity}": value for quantity, value in numbers.items()})

    def flush(self, last: bool = False) -> None:
        """Send what the tracker has not got yet; with `last`, the newest loss whatever its step is."""
        losses = self.series.get("loss", {})
        if last and losses and not is_for_store("loss", newest := max(losses)):
            self._unsent.append(("loss", losses[newest], newest))
        self._tracker.metrics(self._unsent)
        self._unsent = []
        self._flushed = time.monotonic()

    def last(self) -> dict[str, float]:
        """The newest value of every metric."""
        return {key: values[max(values)] for key, values in self.series.items()}

    def thinned(self, key: str) -> list[tuple[int, float]]:
        """A metric at no more than about CURVE steps, evenly spread by their logarithm; empty where there is none."""
        series = self.series.get(key, {})
        steps = np.array(sorted(series))
        places = np.unique(np.geomspace(1, max(len(steps), 1), CURVE).round().astype(int)) - 1
        return [(int(step), series[int(step)]) for step in (steps[places] if len(steps) else ())]

    def tags_of_store(self) -> dict[str, str]:
        """The tags of the run in a store: its own, and the metrics that are AS_TAGS."""
        return self.tags | {key: f"{value:.6g}" for key, value in self.last().items() if key.startswith(AS_TAGS)}

    def final_spectrum(self) -> list[Row]:
        """The newest singular values as rows of one metric whose step is the index, so that a store overlays runs."""
        values: Iterable[float] = self.spectra[max(self.spectra)].values if self.spectra else ()
        return [("spectrum/final", float(s), k) for k, s in enumerate(values, 1)]

    def state_dict(self) -> dict[str, Any]:
        """All of it, in tensors and plain containers; flush before you save it."""
        return {
            "series": {key: self._tensors_of(key) for key in self.series},
            "spectra": {step: _plain(spectrum) for step, spectrum in self.spectra.items()},
            "comparison": {name: (dict(m.numbers), _plain(m.spectrum)) for name, m in self.comparison.items()},
            "tags": self.tags,
        }

    def _tensors_of(self, key: str) -> dict[str, Tensor]:
        """Steps and values of a series, of which only what is new since the last time is converted."""
        series, kept = self.series[key], self._tensors.get(key)
        fresh = list(islice(reversed(series.items()), len(series) - (0 if kept is None else len(kept["steps"]))))[::-1]
        found = {
            "steps": torch.tensor([step for step, _ in fresh], dtype=torch.int64),
            "values": torch.tensor([value for _, value in fresh], dtype=torch.float64),
        }
        if kept is not None:
            found = {name: torch.cat([kept[name], tensor]) for name, tensor in found.items()}
        self._tensors[key] = found
        return found

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; the tracker is offered every row again and takes those that it lacks."""
        self.series = {
            k: dict(zip(v["steps"].tolist(), v["values"].tolist(), strict=True)) for k, v in state["series"].items()
        }
        self._tensors = {}
        self.spectra = {step: _spectrum(plain) for step, plain in state["spectra"].items()}
        self.comparison = {name: Measured(n, _spectrum(plain)) for name, (n, plain) in state["comparison"].items()}
        self.tags = dict(state["tags"])
        rows = ((key, value, step) for key, values in self.series.items() for step, value in values.items())
        self._unsent = [(key, value, step) for key, value, step in rows if is_for_store(key, step)]


def is_for_store(key: str, step: int) -> bool:
    """Whether a metric is a curve of the store at this step: not AS_TAGS, nor most losses after EVERY_LOSS steps."""
    if key.startswith((AS_TAGS, FLAGS)):
        return False
    return key != "loss" or step <= EVERY_LOSS or step % THEN == 0


def _plain(spectrum: Spectrum) -> tuple[Tensor, str, float]:
    return torch.from_numpy(spectrum.values), spectrum.method, spectrum.resolution


def _spectrum(plain: tuple[Tensor, str, float]) -> Spectrum:
    values, method, resolution = plain
    return Spectrum(values.numpy(), method, resolution)

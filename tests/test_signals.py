"""Wishes to stop: at the next step where something would be lost, at once where nothing would."""

import contextlib
import signal
from pathlib import Path

import pytest
from fixtures import Compose

from pde_train.errors import Interrupted
from pde_train.runs.result import Result
from pde_train.runs.run import run_config
from pde_train.training.loop import Loop
from pde_train.training.signals import StopSignals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_kept_for_the_next_step_and_said_at_once(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    with contextlib.suppress(Interrupted), StopSignals() as signals:
        signals.install()
        signal.raise_signal(number)
        assert signals.received == number
        assert capfd.readouterr().err == "stopping after this step; the same signal again stops at once\n"
        assert signal.getsignal(number) is before  # a second one acts as it did
        raise Interrupted(number)  # the answer to the first
    assert signal.getsignal(number) is before


def received_in_vain(number: signal.Signals, error: Exception | None) -> None:
    with StopSignals() as signals:
        signals.install()
        signal.raise_signal(number)
        if error is not None:
            raise error


def test_a_run_that_fails_after_a_signal_says_why_before_the_sweep_ends(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Loop, start: int, stop: int) -> None:
        signal.raise_signal(signal.SIGINT)
        raise ValueError("of the run")

    monkeypatch.setattr(Loop, "train", fail)
    cfg = compose("model=two_layer", "model.width=4", "sampler.interior=8", "method.steps=2", "method.compile=never")
    with pytest.raises(KeyboardInterrupt):
        run_config(cfg, tmp_path, {}, [], of_a_sweep=True)
    result = Result.read(tmp_path)
    assert result.status == "failed"
    assert "ValueError: of the run" in str(result.error)


@pytest.mark.parametrize("error", [None, ValueError("of the run")])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_no_run_answers_is_kept_for_the_sweep(number: signal.Signals, error: Exception | None) -> None:
    heard: list[int] = []
    before = signal.signal(number, lambda number, frame: heard.append(number))
    try:
        with contextlib.nullcontext() if error is None else pytest.raises(ValueError, match="of the run"):
            received_in_vain(number, error)
        assert not heard
        StopSignals.answer()
        assert heard == [number]
        StopSignals.answer()
        assert heard == [number]
    finally:
        signal.signal(number, before)


def compiled(number: signal.Signals, reached: list[str]) -> None:
    """A compiler that keeps exceptions for itself, and a signal meanwhile."""
    with StopSignals() as signals, signals.at_once():
        signals.install()
        with contextlib.suppress(Exception):
            signal.raise_signal(number)
        reached.append("what comes after")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_at_once_where_nothing_can_be_lost(number: signal.Signals) -> None:
    reached: list[str] = []
    with pytest.raises(Interrupted, match=f"stopped by signal {number} before training began") as stop:
        compiled(number, reached)
    assert not reached
    assert stop.value.code == 128 + number


def interrupted_by_somebody_else(signals: StopSignals) -> None:
    with signals.at_once():
        raise KeyboardInterrupt


def test_without_a_signal_nothing_is_stopped() -> None:
    with StopSignals() as signals:
        signals.install()
        with signals.at_once():
            pass
        assert signals.received is None
        with pytest.raises(KeyboardInterrupt):
            interrupted_by_somebody_else(signals)

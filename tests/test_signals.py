"""Wishes to stop: at the next step where something would be lost, at once where nothing would."""

import contextlib
import signal

import pytest

from pde_train.errors import Interrupted
from pde_train.training.signals import StopSignals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_kept_for_the_next_step_and_said_at_once(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    with StopSignals() as signals:
        signals.install()
        signal.raise_signal(number)
        assert signals.received == number
        assert capfd.readouterr().err == "stopping after this step; the same signal again stops at once\n"
        assert signal.getsignal(number) is before  # a second one acts as it did
    assert signal.getsignal(number) is before


def compiled(signals: StopSignals, number: signal.Signals, reached: list[str]) -> None:
    """A compiler that keeps exceptions for itself, and a signal meanwhile."""
    with signals.at_once():
        with contextlib.suppress(Exception):
            signal.raise_signal(number)
        reached.append("what comes after")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_at_once_where_nothing_can_be_lost(number: signal.Signals) -> None:
    reached: list[str] = []
    with StopSignals() as signals:
        signals.install()
        with pytest.raises(Interrupted, match=f"stopped by signal {number} before training began") as stop:
            compiled(signals, number, reached)
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

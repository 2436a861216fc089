"""The errors that a user sees.

The text of an error is one sentence that says what was found, what was expected and what to do.
Each class has the exit code of the command.
"""

import difflib
from collections.abc import Iterable
from pathlib import Path

SECRET = (
    "tracking.uri holds a password or a token, and the words of a command are logged: expected it in an environment "
    "variable, such as tracking.uri='http://${oc.env:USER_AND_PASSWORD}@host'"
)
"""The error for a secret among the words of a command."""


class PdeTrainError(Exception):
    """The base class of errors whose text is a sentence for the user; `code` is the exit code of the command."""

    code = 1


class UsageError(PdeTrainError):
    """The command line or the configuration asks for something impossible."""

    code = 2


class RunError(PdeTrainError):
    """A run with a valid configuration failed: its loss became nan, the disk is full, or the store is unreachable."""


class Busy(UsageError):
    """Another process works in the folder of the run."""

    def __init__(self, folder: Path):
        super().__init__(
            f"another process is at work in {folder}: expected a folder of its own, wait or choose another"
        )


class Interrupted(PdeTrainError):
    """A signal stopped the run between two steps, after a checkpoint was written, or before its first step.

    Args:
        signal_number: The number of the signal.
        step: The number of steps that were taken; None before the first one of this process.
    """

    def __init__(self, signal_number: int, step: int | None = None):
        when = "before training began" if step is None else f"at step {step}, a checkpoint was written"
        super().__init__(f"stopped by signal {signal_number} {when}")
        self.signal_number = signal_number
        self.code = 128 + signal_number


class Pruned(PdeTrainError):
    """A search ended the run before its last step, as others had come further by then."""


def nearest(word: str, known: Iterable[str]) -> str:
    """The text `, did you mean ...?` with the known name that is most like a mistyped word; empty where none is."""
    matches = difflib.get_close_matches(word, list(known), n=1)
    return f", did you mean {matches[0]}?" if matches else ""


def brief(error: BaseException) -> str:
    """The first line of what an error says; its class where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def sentence(error: BaseException) -> str:
    """The text of an error in one line; that of an OSError of a file says what to do."""
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        return f"{error.filename} does not exist: expected this file or folder, correct its name or make it"
    if isinstance(error, OSError) and error.filename is not None:
        return (
            f"{error.filename} cannot be used ({error.strerror}): expected a file or folder that may be read and "
            "written, and room on its disk, choose another one"
        )
    return " ".join(str(error).split()) or type(error).__name__

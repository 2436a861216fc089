"""What a user sees when something is wrong: a sentence (what came, what was expected, what to do) and an exit code."""

import difflib
from collections.abc import Iterable
from pathlib import Path

SECRET = (
    "tracking.uri holds a password or a token, and the words of a command are logged: expected it in an environment "
    "variable, such as tracking.uri='http://${oc.env:USER_AND_PASSWORD}@host'"
)
"""Said of a secret that is typed."""


class PdeTrainError(Exception):
    """Base of the errors whose text is a sentence for the user; `code` is the exit code of the command."""

    code = 1


class UsageError(PdeTrainError):
    """The command line or the configuration asks for something that cannot be."""

    code = 2


class RunError(PdeTrainError):
    """The run was asked for rightly and failed: NaN, a full disk, a store out of reach."""


class Busy(UsageError):
    """Another process is at work in the folder of the run."""

    def __init__(self, folder: Path):
        super().__init__(
            f"another process is at work in {folder}: expected a folder of its own, wait or choose another"
        )


class Interrupted(PdeTrainError):
    """A signal stopped the run at a step boundary, after a checkpoint."""

    def __init__(self, signal_number: int, step: int):
        super().__init__(f"stopped by signal {signal_number} at step {step}, a checkpoint was written")
        self.signal_number = signal_number
        self.code = 128 + signal_number


def nearest(word: str, known: Iterable[str]) -> str:
    """`, did you mean ...?` where a known name is like a mistyped word; otherwise nothing."""
    found = difflib.get_close_matches(word, list(known), n=1)
    return f", did you mean {found[0]}?" if found else ""


def sentence(error: BaseException) -> str:
    """What to print of an error: ours are sentences, an OSError of a file gets what to do about it."""
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        return f"{error.filename} does not exist: expected this file or folder, correct its name or make it"
    if isinstance(error, OSError) and error.filename is not None:
        return (
            f"{error.filename} cannot be used ({error.strerror}): expected a file or folder that may be read and "
            "written, and room on its disk, choose another one"
        )
    return " ".join(str(error).split()) or type(error).__name__

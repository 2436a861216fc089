"""The command line: `python -m pde_train [--multirun] group=choice key=value ...`.

Of large packages only hydra is imported at module level, so that `--help` and `--cfg job` answer at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from pde_train.conf_dir import choices, conf_dir, groups, named_groups
from pde_train.errors import Busy, Interrupted, PdeTrainError, Pruned, UsageError, nearest, sentence
from pde_train.guards import guard_composition, refuse_secrets
from pde_train.help import show_help
from pde_train.instantiate import build_group
from pde_train.overrides import Overrides
from pde_train.progress import QUIET, waiting
from pde_train.run_folder import Status
from pde_train.tracking.uris import without_secrets

if TYPE_CHECKING:
    from pde_train.runs.result import Result

log = logging.getLogger(__name__)

TRACEBACK = "PDE_TRAIN_TRACEBACK"
"""Environment variable that is set where the user asked for tracebacks by HYDRA_FULL_ERROR=1."""

MANY = ("-m", "--multirun")
"""The words that ask for a sweep; they may stand anywhere in a command."""

QUIETLY = (
    "+hydra.job_logging.handlers.console.level=WARNING",
    "+hydra.hydra_logging.handlers.console.level=WARNING",
)
"""What `-q` means to Hydra: the log file of a run stays whole."""

LOUDLY = ("hydra.verbose=[pde_train]",)
"""What `-v` means to Hydra."""

GO_ON = "go on with the same command; a single run wants resume=true and its folder as well"


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
def task(cfg: DictConfig) -> str:
    """One run, from its composed configuration; returns `finished`, in a sweep also `failed` or `pruned`."""
    here = HydraConfig.get()
    sweeping = here.mode == RunMode.MULTIRUN
    choices = {k: str(v) for k, v in here.runtime.choices.items() if not k.startswith("hydra/") and v is not None}
    try:
        with contextlib.suppress(Exception):  # what is wrong is said when it is built for the run
            build_group(cfg, "tracking").prepare(wait=False)
        with waiting("loading torch"):
            from pde_train.runs.run import run_config

        if not sweeping:
            if said := Overrides.parse(here.overrides.task).unused(cfg.get("method")):
                raise UsageError(said)
            if many := here.sweeper.get("params"):
                what = " ".join(f"{key}={value}" for key, value in many.items())
                log.warning(
                    "experiment=%s describes a sweep (%s), and this is one run: --multirun trains all of it",
                    choices.get("experiment"),
                    what,
                )
        if cfg.sweep.stack is not None:
            from pde_train.runs.stack import train

            return train(Path(cfg.sweep.stack), cfg)
        result = run_config(cfg, Path(here.runtime.output_dir), choices, list(here.overrides.task), sweeping)
    except Interrupted as stop:
        how = "" if sweeping else f" and resume=true hydra.run.dir={here.runtime.output_dir}"
        log.error("%s; go on with the same command%s", stop, how)
        if stop.signal_number == signal.SIGUSR2:  # now that all is saved, to who handles it: the job is queued again
            signal.raise_signal(signal.SIGUSR2)
        raise SystemExit(stop.code) from None  # an Exception would make Hydra go on with the next run
    except PdeTrainError as error:
        if sweeping and isinstance(error, Busy):  # the sweep waits for it
            log.info("%s", error)
            return "elsewhere"
        if sweeping and isinstance(error, Pruned):  # as the search wanted it
            log.info("%s", error)
            return Status.PRUNED
        if sweeping:  # the other runs go on; the sweep's table names this one
            log.error("%s", error, exc_info=TRACEBACK in os.environ)
            return Status.FAILED
        if TRACEBACK in os.environ:
            raise
        print(error, file=sys.stderr)
        raise SystemExit(error.code) from None  # an Exception would make Hydra add lines of its own
    if not sweeping:
        _show(result, cfg)
    return result.status


def main() -> None:
    """The command; errors are one sentence, exit code 2 for usage and 1 for failure."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        os.environ[TRACEBACK] = "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then hands its errors to us
    signal.signal(signal.SIGTERM, _terminate)
    sys.unraisablehook = _not_raised
    logging.raiseExceptions = False  # a log file on a full disk is no reason for a traceback
    code = 0
    try:
        words = sys.argv[1:]
        _check_options(words)
        if "--version" in words:
            print(f"pde_train {version('pde_train')}")
            return
        if {"--help", "-h"} & set(words):
            show_help(words)
            return
        if "-q" in words:
            os.environ[QUIET] = "1"
        sys.argv[1:] = words = _in_order(words)
        refuse_secrets(words)
        guard_composition()
        _check_words(words)
        task()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except KeyboardInterrupt:
        print(f"stopped by Ctrl-C; {GO_ON}", file=sys.stderr)
        code = 130
    except Exception as error:  # whatever it is, a user sees one sentence
        if TRACEBACK in os.environ:
            traceback.print_exc()
        else:
            print(without_secrets(_sentence(error)), file=sys.stderr)
        usage = isinstance(error, (HydraException, OmegaConfBaseException))
        code = 2 if usage else getattr(error, "code", 1)
    sys.exit(code)


def _in_order(words: Sequence[str]) -> list[str]:
    """The words as Hydra reads them: `--multirun` first, `-q` and `-v` in its words, `?key=value` as `sweep.optional`.

    Args:
        words: Of the command.

    Returns:
        The words.

    Raises:
        UsageError: A word begins with `?`, and no sweep is asked for.
    """
    many, others = [w for w in words if w in MANY], [w for w in words if w not in (*MANY, "-q", "-v")]
    others += [*(QUIETLY if "-q" in words else ()), *(LOUDLY if "-v" in words else ())]
    optional = [word for word in others if word.startswith("?")]
    if optional and not many:
        raise UsageError(
            f"{optional[0]} is for the cells of a sweep that have its key: expected --multirun, or {optional[0][1:]}"
        )
    kept = [word for word in others if word not in optional]
    quoted = ",".join(QuotedString(word[1:], Quote.single).with_quotes() for word in optional)
    return [*many, *kept, *([f"sweep.optional=[{quoted}]"] if optional else [])]


def _check_options(words: Sequence[str]) -> None:
    """Refuse options that neither Hydra nor we have.

    Args:
        words: Of the command.

    Raises:
        UsageError: There is one.
    """
    known = {*get_args_parser()._option_string_actions, *MANY, "-q", "-v"}
    for word in words:
        name = word.partition("=")[0]
        if word.startswith("-") and name not in known:
            raise UsageError(f"{name} is no option: expected one of {', '.join(sorted(known))}{nearest(name, known)}")


def _check_words(words: Sequence[str]) -> None:
    """Refuse words that Hydra would accept without effect, or answer with the names of its own parts.

    Args:
        words: Of the command.

    Raises:
        UsageError: A word is no `key=value` and no `~key`, or names a group or a choice that does not
            exist.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    many = any(word in MANY for word in words)
    for word in words:
        if word.startswith("+") and word[1:].partition("=")[0] in named_groups():
            raise UsageError(f"{word} adds a group that every configuration has: expected {word[1:]}, drop the +")
        if word.startswith("-") or not ("=" in word or word.startswith("~")):
            continue
        try:
            override = OverridesParser.create().parse_override(word)
        except HydraException:  # Hydra says what it cannot read
            continue
        key = override.key_or_group
        if override.is_sweep_override() and not many:
            raise UsageError(f"{word} names several values, and this is one run: expected one value, or --multirun")
        if override.is_delete() and key in groups():
            raise UsageError(f"{word} leaves no {key}: expected one of {', '.join(choices(key))}, remove {word}")
        if key in named_groups() and not override.is_delete() and not override.is_sweep_override():
            value = override.value()
            if not (isinstance(value, str) or (key == "experiment" and value is None)):
                shown = override.get_value_element_as_str()
                raise UsageError(f"{key}={shown} is no choice: expected one of {', '.join(choices(key))}, choose one")
        if many and key == "resume":
            raise UsageError(f"{word} is for a single run: a sweep always goes on, sweep.fresh=true starts it over")
        if not many and key.partition(".")[0] == "sweep":
            raise UsageError(f"{word} changes nothing in a single run: expected --multirun, or no such word")


def _terminate(number: int, frame: FrameType | None) -> None:
    print(f"stopped by signal {number}; {GO_ON}", file=sys.stderr)
    raise SystemExit(128 + number)


def _not_raised(told: sys.UnraisableHookArgs) -> None:
    """Python ignores what is raised while an object is cleared away: a signal that came just then is sent again."""
    number = None
    if isinstance(told.exc_value, KeyboardInterrupt):
        number = next(iter(told.exc_value.args), signal.SIGINT)
    elif isinstance(told.exc_value, SystemExit) and told.exc_value.code == 128 + signal.SIGTERM:
        number = signal.SIGTERM
    if number is None or sys.is_finalizing():
        sys.__unraisablehook__(told)
        return
    again = threading.Timer(0.01, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()


def _show(result: Result, cfg: DictConfig) -> None:
    from pde_train.runs import tables

    tables.show(tables.medians(tables.groups([result])))
    if result.comparison:
        tables.show_comparison(result.comparison)
    for line in tables.learnt_numbers(result):
        print(line)
    print(f"Figures and numbers: {HydraConfig.get().runtime.output_dir}")
    look = build_group(cfg, "tracking").how_to_look
    if look:
        print(f"See every run: {look}")


def _sentence(error: Exception) -> str:
    """What Hydra says over many lines, in one, with the nearest name where one was mistyped."""
    cause = error.__cause__
    if isinstance(cause, (ConfigAttributeError, ConfigKeyError)) and isinstance(cause.parent_node, DictConfig):
        keys = [str(k) for k in cause.parent_node if k not in ("_target_", "_partial_")]
        if not keys:
            group = str(cause.full_key).partition(".")[0]
            return (
                f"{cause.full_key} is no key of one choice of {group}, which has none: expected it beside choices that "
                f"have it alone, or --multirun and ?{cause.full_key}=..., for the cells that have it"
            )
        group, _, name = str(cause.full_key).partition(".")
        others = [choice for choice in choices(group) if re.search(rf"^{name}:", _text(group, choice), re.M)]
        hint = nearest(str(cause.key), keys) or (f", or {group}={' or '.join(others)}, which have it" if others else "")
        of = str(cause.parent_node.get("_target_", "")).rpartition(".")[2]
        whose = f" of {of}" if of else " of this configuration"
        return f"{cause.full_key} is no key{whose}: expected one of {', '.join(keys)}{hint}; see --cfg job"
    if not isinstance(error, (HydraException, OmegaConfBaseException)):
        return sentence(error)
    text = " ".join(str(error).partition("Config search path")[0].split())
    if unknown := re.search(r"Could not override '([\w/]+)'", text):
        return f"{unknown[1]} is no group: expected one of {', '.join(groups())}{nearest(unknown[1], groups())}"
    if choice := re.search(r"Could not (?:find|load) '(\w+)/([\w/.-]*)'", text):
        known = text.partition(f"Available options in '{choice[1]}':")[2].split() or choices(choice[1])
        hint = nearest(choice[2], {*known, *choices(choice[1])})
        own = (
            ""
            if any(word.startswith(("--config-dir", "-cd")) for word in sys.argv)
            else ", or --config-dir with your own"
        )
        return f"{choice[1]}={choice[2]} is no choice: expected one of {', '.join(known)}{own}{hint}; see --help"
    return f"{text}; see --help"


def _text(group: str, choice: str) -> str:
    """The YAML file of a choice that comes with the package."""
    return (conf_dir() / group / f"{choice}.yaml").read_text()

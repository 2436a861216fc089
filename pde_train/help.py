"""What `python -m pde_train --help` prints, for the whole command or for some groups.

Hydra's own help composes the configuration and reads every file of it, which takes longer than all else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra._internal.utils import get_args_parser

from pde_train.conf_dir import choices, conf_dir, named_groups
from pde_train.errors import UsageError, nearest

HELP = """\
pde_train: what does the way of taking derivatives do to the training of neural networks on differential equations?

Usage: python -m pde_train [--multirun] [group=choice] [key=value] ...

== Groups and choices ==
{groups}

== Keys of every run ==
{keys}

Three to try:
  python -m pde_train
  python -m pde_train pde=biharmonic_2d differentiator=finite_difference differentiator.accuracy=4 model.features=400
  python -m pde_train --multirun differentiator=reverse,finite_difference model=two_layer seed=0,1,2

python -m pde_train --help differentiator   shows the choices of one group, their keys, and what these mean
python -m pde_train -q            only warnings and the table; -v: errors while training, too
python -m pde_train --cfg job     shows the composed configuration
python -m pde_train --hydra-help  shows Hydra's own options

Other commands (each has --help); `pde_train` is the same as `python -m pde_train`:
  python -m pde_train.status   what the cells of sweeps are doing
  python -m pde_train.figures  draw the figures of cells that have none, as those of stacks
  python -m pde_train.sync     deliver runs to a tracking store
  python -m pde_train.study    every part of the study, and its report
  python -m pde_train.report   the report once more"""


def show_help(words: Sequence[str]) -> None:
    """Print the help; of groups that stand beside `--help`, the choices, each with its keys and their comments.

    Args:
        words: Of the command.

    Raises:
        UsageError: A word beside it is no group.
    """
    options = vars(get_args_parser().parse_known_args(list(words))[0])
    asked = [word.partition("=")[0] for word in options["overrides"]]
    known = named_groups()
    if unknown := [word for word in asked if word not in known]:
        hint = nearest(unknown[0], known)
        raise UsageError(f"{unknown[0]} is no group: expected --help and one of {', '.join(known)}{hint}")
    folders = [conf_dir(), *([Path(options["config_dir"])] if options["config_dir"] else [])]
    if not asked:
        lists = [f"{group}: {', '.join(choices(group, *folders))}" for group in known]
        keys = (conf_dir() / "config.yaml").read_text().partition("\nname:")[2].partition("\nhydra:")[0]
        print(HELP.format(groups="\n".join(lists), keys=f"name:{keys}".rstrip()))
    for group in asked:
        for folder in folders:
            for choice in choices(group, folder):
                print(f"== {group}={choice}\n{(folder / group / f'{choice}.yaml').read_text().rstrip()}\n")

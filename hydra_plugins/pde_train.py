"""What Hydra finds of pde_train, as it takes sweepers and launchers from here alone; nothing but hydra is loaded."""

from pde_train.sweeps import optuna_sweeper, stacked_launcher, sweeper


class GridSweeper(sweeper.GridSweeper):
    """See `pde_train.sweeps.sweeper.GridSweeper`."""


class OptunaSweeper(optuna_sweeper.OptunaSweeper):
    """See `pde_train.sweeps.optuna_sweeper.OptunaSweeper`."""


class StackedLauncher(stacked_launcher.StackedLauncher):
    """See `pde_train.sweeps.stacked_launcher.StackedLauncher`."""

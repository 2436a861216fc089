"""What Hydra finds of pde_train, as it takes sweepers and launchers from here alone; nothing but hydra is loaded."""

from pde_train.sweeps import stacked_launcher, sweeper


class GridSweeper(sweeper.GridSweeper):
    """See `pde_train.sweeps.sweeper.GridSweeper`."""


class StackedLauncher(stacked_launcher.StackedLauncher):
    """See `pde_train.sweeps.stacked_launcher.StackedLauncher`."""

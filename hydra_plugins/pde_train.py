"""What Hydra finds of pde_train, as it takes sweepers and launchers from here alone; nothing but hydra is loaded."""

from pde_train.sweeps import sweeper


class GridSweeper(sweeper.GridSweeper):
    """See `pde_train.sweeps.sweeper.GridSweeper`."""

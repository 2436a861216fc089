"""What Hydra finds of pde_train for SLURM: it takes launchers from this package alone. submitit is not loaded here."""

from pde_train.sweeps import slurm


class SlurmLauncher(slurm.SlurmLauncher):
    """See `pde_train.sweeps.slurm.SlurmLauncher`."""

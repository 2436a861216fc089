"""Grids of runs: `python -m pde_train --multirun ...`.

A grid is the product of all choices of a command line; a cell is one of its runs, in a folder named by the hash of what
decides its numbers, so that every grid that contains it finds it. `compose` makes the cells, `grid` says which are
done, `sweeper` launches the others until each has an end, and `report` shows what they came to: a table, `overlays` of
their curves, and `views` of the same training under another entropy. In a search (`optuna_sweeper`) the cells are those
that Optuna chooses, by what the earlier ones came to.

Hydra's launchers run the cells in one process, in several (`workers`), on a cluster (`slurm`), or many as one
(`stacked_launcher`).
"""

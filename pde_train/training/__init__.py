"""Training of networks: how an optimiser step happens.

`training.py` holds everything that decides the next number of one run: model, optimiser, points, generator. `loop.py`
takes the steps of one run or of several, and does what is due between them: new points, errors, diagnostics,
checkpoints, a wish to stop. How steps are computed is decided once, in `select_steps.py`:

- `steps`: operation by operation.
- `compiled_steps`: code compiled ahead of time (`when_to_compile`, `compiling`, `library`, `decompositions`), with the
  optimiser's step (`updates`).
- `sharded_steps`: by several processes that share the points (`workers`), on several nodes too (`tasks`).
- `stacked_steps`: of several runs as one, by `vmap` (`select_stacked_steps`, `stacked`).

Compiled and stacked steps are compared with eager ones before they are used (`agreement`). Lightning drives the loop of
a single run (`module`).
"""

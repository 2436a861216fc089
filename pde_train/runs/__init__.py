"""The life of a run.

A run has a folder. `run.py` opens it: one context manager locks the folder, refuses what is not this run's, tells the
tracking store, and writes `result.json` however the run ends. What a run leaves is described by one file each:

- `result`: `result.json`, how it ended and the last value of every metric.
- `artifacts`: the files in its folder, with `figures` and `tables`.
- `flags`: what a reader must know of its numbers, such as `diverged`.
- `provenance`: what decides its numbers, hashed; versions, commit, machine.

`stack.py` is the job in which many runs of one shape are open side by side and train together.
"""

"""Schedules of the learning rate, one file and one YAML file (`conf/schedule/`) each.

A schedule gives the factor of `optimizer.lr` at every step, from the count of steps, the number of steps of the run,
and the losses that were measured. It keeps no state of its own, so a resumed run goes on as if nothing had happened. To
add one, derive a frozen dataclass from `pde_train.schedules.base.LearningRate`.
"""

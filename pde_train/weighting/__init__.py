"""Weights of the terms of the loss, one file and one YAML file (`conf/weighting/`) each.

The loss is the sum over equations e of mean(w_e r_e^2). A weighting changes the w_e during training, for a whole
equation or for each of its points, and nothing else: errors and residuals are measured without them. Its state are the
weights alone, which a checkpoint keeps. To add one, derive a frozen dataclass from
`pde_train.weighting.base.Weighting`. The weights that a user gives by `pde.weights` stay beside them.
"""

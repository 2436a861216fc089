"""Optimisers that torch does not have. One file and one YAML file in `conf/optimizer/` each.

An optimiser is a `torch.optim.Optimizer` whose constructor takes the parameters first. Those of
torch itself have a YAML file alone, which names torch's class. `step(closure)` of an optimiser that
must have a closure evaluates loss and gradients as often as it wants, and returns the loss before the
step; the others find the gradients in the parameters. `GaussNewton` takes residual rows instead.

The classes here must keep their whole state in `state_dict`, so that a resumed run takes the same
steps to the last bit. To add one, write its class here and its YAML file. How an optimiser is
compiled, or vectorised over many runs, is stated by its attribute `update` (`base.py`), and for those
of torch by `pde_train.training.updates`. The step of any other optimiser is run as it is.
"""

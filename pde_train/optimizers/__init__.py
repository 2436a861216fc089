"""Optimisers that torch does not have. One file and one YAML file in `conf/optimizer/` each.

An optimiser is a `torch.optim.Optimizer` whose constructor takes the parameters first. Those of
torch itself have a YAML file alone, which names torch's class. The training loop calls
`step(closure)` for every optimiser; the closure computes the loss and its gradients, and `step`
returns the loss before the step.

The classes here must keep their whole state in `state_dict`, so that a resumed run takes the same
steps to the last bit. To add one, write its class here and its YAML file. How an optimiser is
compiled, or vectorised over many runs, is stated by `pde_train.training.updates`, which runs the
step as it is for every optimiser that it does not know.
"""

"""Models: fields u(x) with parameters. One file and one YAML file in `conf/model/` each.

`base.Model` promises that values are computed row by row and says up to which order derivatives of
u are useful. `base.LinearModel` adds features (n, P) and coefficients (P, k) with u = features @
coefficients; least squares solves for the coefficients, and diagnostics take the spectrum of the
system matrix instead of a Jacobian. A model of a user may be any `torch.nn.Module`: without these
attributes it counts as smooth and as not linear.

What every model can be given beside its own fields (scaling, a periodic embedding, the parameters of
another run) is in `options`: a model is put behind its `inputs`, and knows only their number.

Parameters are drawn in float64 from a NumPy generator of the model's own seed, so that two runs
that differ in the differentiator or in the precision begin with the same numbers. `activations` has
the activation functions, written out where torch's own lack derivatives of high order. To add a
model, write its class here and its YAML file, and the contract tests find it by the file.
"""

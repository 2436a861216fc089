"""What is measured of a model beyond its loss and error.

`Diagnostics` (`base`) measure at some steps: `spectrum` the singular values of the system matrix or of the residual
Jacobian, `compare` those of many differentiators at the same parameters (`comparison` measures, for each, the errors of
derivatives and of the gradient, time and memory), `none` nothing. `audit` is measured once, after every run: does the
trained function solve the equation, or only what its differentiator sees at the training points?
"""

"""Differentiators: how derivatives of a field are taken. One file and one YAML file in `conf/differentiator/` each.

`base.Differentiator` promises: given a row-wise field u, points (n, d) and a set of partial
derivatives, `partials` returns one column (n, m) for each, differentiable by the parameters that u
holds. Every differentiator serves networks (m = 1) and random features (m columns) alike, and all
derivatives that an equation needs are answered in one pass.

`reverse` and `forward` nest automatic differentiation. `taylor` pushes truncated Taylor series
(`series`, with the rules of torch's functions in `arithmetic_rules` and `taylor_rules`) along
`directions`. `finite_difference` combines values at the points of `stencils`, and
`difference_error` isolates each part of its error. `complex_step` integrates over circles of
`complex_points`. `hybrid` takes finite differences of exact first derivatives, `stochastic`
estimates Laplacians from random directions. To add one, write a frozen dataclass with `partials`
here and its YAML file; the contract tests then compare it with exact derivatives.
"""

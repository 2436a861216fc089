"""Equations: one file and one YAML file in `conf/pde/` each.

A PDE is a frozen dataclass of its parameters, derived from `base.PDE`. It names its coordinates and
its domain, and each method marked by `@on(region, needs=...)` is one equation: the formula of a
residual on a jet, which reads as in a paper, `d.u_t + d.u * d.u_x - self.viscosity * d.u_xx`.
`needs` names the derivatives that the formula uses. How they are taken is the matter of a
differentiator, which no equation knows.

A linear PDE needs no second declaration: `linear_system.assemble` finds the system matrix from the same
formulas. Where the exact solution is known, the method `exact` gives it, and runs then report
errors. To add an equation, write its class here and its YAML file; `docs/extending.md` shows one.
"""

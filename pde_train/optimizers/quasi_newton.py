"""Self-scaled quasi-Newton methods with a dense inverse Hessian: SSBroyden and SSBFGS."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from pde_train.memory import check_memory
from pde_train.optimizers.trials import QuasiNewton, QuasiNewtonUpdate, Step

COPIES = 4
"""Matrices of the size of the inverse Hessian that a step has in memory."""


class SelfScaledUpdate(QuasiNewtonUpdate):
    """A step of a self-scaled quasi-Newton method as a pure function.

    The inverse Hessian H, the step s = t d, the change y of the gradient and t itself give
    H' = (H - H y y^T H / (y^T H y) + phi (y^T H y) v v^T) / tau + s s^T / (y^T s), v = s / (y^T s) - H y / (y^T H y).
    H stays where y^T s is not positive beyond rounding. A search that fails, or a direction that does not descend, sets
    H = I.

    Args:
        broyden: Whether phi and tau are those of SSBroyden (Urban, Stefanou, Pons, J. Comput. Phys. 2025, equations 13
            to 23, after Al-Baali), or those of SSBFGS (equation 11: phi = 1).
    """

    def __init__(self, broyden: bool):
        self.broyden = broyden

    def nothing_learnt(self, like: Tensor) -> tuple[Tensor, ...]:
        return (torch.eye(len(like), dtype=like.dtype, device=like.device),)

    def newton(self, curvature: tuple[Tensor, ...], gradient: Tensor) -> Tensor:
        product: Tensor = curvature[0] @ gradient
        return product

    def learn(self, curvature: tuple[Tensor, ...], step: Step) -> tuple[tuple[Tensor, ...], Tensor]:
        (inverse,), (s, y) = curvature, step[:2]
        hy = inverse @ y
        ys, yhy = y @ s, y @ hy
        learnt = step.usable() & (yhy > 0)
        ys, yhy = torch.where(learnt, ys, 1.0), torch.where(learnt, yhy, 1.0)
        b = torch.where(learnt, -step.length * (s @ step.gradient) / ys, 1.0)  # s^T B s / (y^T s), with B s = -t g
        phi, tau = self._scales(b, yhy / ys, len(s), step.first)
        v = s / ys - hy / yhy
        kept = torch.where(learnt, 1 / tau, 1.0)
        removed, added, secant = (torch.where(learnt, c, 0.0) for c in (1 / (tau * yhy), phi * yhy / tau, 1 / ys))
        updated = (
            kept * inverse - torch.outer(removed * hy, hy) + torch.outer(added * v, v) + torch.outer(secant * s, s)
        )
        return (updated,), learnt

    def _scales(self, b: Tensor, h: Tensor, p: int, first: Tensor) -> tuple[Tensor, Tensor]:
        """phi and tau from b = s^T B s / (y^T s) and h = y^T H y / (y^T s); the first update scales H = I."""
        rho = (1 / b).clamp(max=1.0)
        if not self.broyden:
            return torch.ones_like(b), torch.where(first, h, rho)
        a = (b * h - 1).clamp(min=torch.finfo(b.dtype).eps)
        lowest = (h * (1 - (a / (1 + a)).sqrt())).clamp(max=1.0)
        theta = torch.maximum((lowest - 1) / a, torch.minimum(1 / lowest, (1 - b) / b))
        sigma = 1 + a * theta
        power = sigma.abs() ** (1 / (1 - p)) if p > 1 else torch.ones_like(b)
        positive, negative = rho * torch.minimum(power, 1 / theta), torch.minimum(rho * power, sigma)
        tau = torch.where(theta > 0, positive, negative)
        return (1 - theta) / sigma, torch.where(first, h / sigma, tau)


class SelfScaled(QuasiNewton):
    """A self-scaled method, whose inverse Hessian is a dense matrix; see `SelfScaledUpdate` and `QuasiNewton`.

    Raises:
        UsageError: As for `QuasiNewton`, or the matrix does not fit into memory.
    """

    broyden: bool

    def __init__(self, params: Iterable[Tensor], decrease: float = 1e-4, curvature: float = 0.9, max_eval: int = 25):
        super().__init__(params, SelfScaledUpdate(self.broyden), decrease, curvature, max_eval)
        count = sum(p.numel() for p in self.parameters)
        check_memory("the inverse Hessian of the optimizer", count * count, copies=COPIES)


class SSBroyden(SelfScaled):
    """The self-scaled Broyden method, see `SelfScaledUpdate`."""

    broyden = True


class SSBFGS(SelfScaled):
    """The self-scaled BFGS method, see `SelfScaledUpdate`."""

    broyden = False

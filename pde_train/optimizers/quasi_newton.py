"""Self-scaled quasi-Newton methods with a dense inverse Hessian: SSBroyden and SSBFGS.

One step is one evaluation of loss and gradient: at a trial point of the line search, whose gradient is used again where
the point is accepted. A step is a pure function without branches (`SelfScaledUpdate`). It is compiled together with the
gradient, line search included, and taken for many runs at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pde_train.errors import UsageError
from pde_train.memory import check_memory
from pde_train.optimizers.base import REMEMBERED, Parameters, Update, flat, loss_and_gradient, write
from pde_train.optimizers.line_search import Search, begin, evaluated

COPIES = 4
"""Matrices of the size of the inverse Hessian that a step has in memory."""

FURTHER, SHORTEST = 1.01, 0.1
"""The first trial of a search, where the last decrease of the loss is expected again (Nocedal and Wright, equation
3.60), is this much further, and at least so long. It saves two of five evaluations; 1 is the longest."""

START, NEW_POINTS, SEARCHING = 0.0, 1.0, 2.0
"""What the next evaluation is: the first one, the first on other points, or a trial of a line search."""


class Memory(NamedTuple):
    """What a quasi-Newton method remembers, for p parameters.

    Attributes:
        point: The trial point (p,), where loss and gradient are evaluated next.
        x: The accepted parameters (p,).
        gradient: The gradient (p,) there.
        direction: The direction (p,) of the line search.
        low_gradient: The gradient (p,) at the lower end of the bracket.
        inverse: The inverse Hessian (p, p).
        search: The scalars of the line search, one after another.
        flags: What the next evaluation is, and whether the inverse Hessian has learnt nothing yet.
    """

    point: Tensor
    x: Tensor
    gradient: Tensor
    direction: Tensor
    low_gradient: Tensor
    inverse: Tensor
    search: Tensor
    flags: Tensor


class SelfScaledUpdate(Update):
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

    def hyper(self, optimizer: torch.optim.Optimizer) -> Tensor:
        group = optimizer.param_groups[0]
        numbers = [float(group[name]) for name in ("decrease", "curvature", "max_eval")]
        return torch.tensor(numbers, dtype=torch.float64, device=group["params"][0].device)

    def state(self, optimizer: torch.optim.Optimizer, parameters: Parameters) -> list[Tensor]:
        if remembered := optimizer.state[parameters[0]].get(REMEMBERED):
            return list(remembered)
        point = flat(parameters)
        nothing, number = torch.zeros_like(point), point.new_ones(())
        search = torch.stack(begin(number, -number, number))
        eye = torch.eye(len(point), dtype=point.dtype, device=point.device)
        flags = point.new_tensor([START, 1.0])
        return list(Memory(point, point.clone(), nothing, nothing.clone(), nothing.clone(), eye, search, flags))

    def put_back(self, optimizer: torch.optim.Optimizer, parameters: Parameters, state: Sequence[Tensor]) -> None:
        write(parameters, Memory(*state).x)
        optimizer.state[parameters[0]] = {REMEMBERED: list(state)}

    def parameters(self, state: Sequence[Tensor]) -> Tensor:
        return Memory(*state).x

    def loss_before(self, state: Sequence[Tensor], loss: Tensor) -> Tensor:
        memory = Memory(*state)
        return torch.where(memory.flags[0] == SEARCHING, memory.search[0], loss)

    def step(self, state: Sequence[Tensor], gradient: Tensor, loss: Tensor, hyper: Tensor) -> list[Tensor]:
        """Evaluate a trial; where it ends the search, update the inverse Hessian and begin the next search."""
        m = Memory(*state)
        kind, fresh = m.flags.unbind()
        search = Search(*m.search.unbind())
        searching, afresh = kind == SEARCHING, kind == START
        smallest = torch.finfo(loss.dtype).eps * m.x.abs().max() / m.direction.abs().max()
        outcome = evaluated(search, loss, gradient @ m.direction, smallest, hyper)
        low_gradient = torch.where(outcome.lowered, gradient, m.low_gradient)
        accepted = outcome.accepted & searching
        fallen_back = outcome.exhausted & searching & (outcome.search.low > 0)
        failed = outcome.exhausted & searching & ~(outcome.search.low > 0)
        moved = accepted | fallen_back

        length = torch.where(moved, torch.where(accepted, search.trial, outcome.search.low), 0.0)
        s = length * m.direction
        x = torch.where(searching, m.x + s, m.point)
        new_gradient = torch.where(fallen_back, low_gradient, torch.where(accepted | ~searching, gradient, m.gradient))
        new_loss = torch.where(
            fallen_back, outcome.search.low_loss, torch.where(accepted | ~searching, loss, search.loss)
        )

        inverse, learnt = self._updated(m.inverse, s, new_gradient - m.gradient, length, m.gradient, moved, fresh > 0)
        direction = -(inverse @ new_gradient)
        reset = afresh | failed | (~(direction @ new_gradient < 0) & (moved | ~searching))
        eye = torch.eye(len(x), dtype=x.dtype, device=x.device)
        inverse = torch.where(reset, eye, inverse)
        direction = torch.where(reset, -new_gradient, direction)
        fresh = torch.where(reset, 1.0, torch.where(learnt, 0.0, fresh))
        slope = new_gradient @ direction
        expected = 2 * FURTHER * (new_loss - search.loss) / slope
        trial = torch.where(moved & (expected > 0), expected.clamp(SHORTEST, 1.0), 1.0)
        trial = torch.where(fresh > 0, (1 / new_gradient.abs().sum()).clamp(max=1.0), trial)
        begun = torch.stack(begin(new_loss, slope, trial))

        ended = moved | failed | ~searching
        numbers = torch.where(ended, begun, torch.stack(outcome.search))
        direction = torch.where(ended, direction, m.direction)
        low_gradient = torch.where(ended, new_gradient, low_gradient)
        flags = torch.stack([torch.full_like(fresh, SEARCHING), fresh])
        point = x + numbers[2] * direction
        return list(Memory(point, x, new_gradient, direction, low_gradient, inverse, numbers, flags))

    def _updated(
        self, inverse: Tensor, s: Tensor, y: Tensor, length: Tensor, old_gradient: Tensor, moved: Tensor, first: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The inverse Hessian after a step, and whether it has learnt from it."""
        hy = inverse @ y
        ys, yhy = y @ s, y @ hy
        least = torch.finfo(y.dtype).eps * torch.linalg.vector_norm(y) * torch.linalg.vector_norm(s)
        learnt = moved & (ys > least) & (yhy > 0)
        ys, yhy = torch.where(learnt, ys, 1.0), torch.where(learnt, yhy, 1.0)
        b = torch.where(learnt, -length * (s @ old_gradient) / ys, 1.0)  # s^T B s / (y^T s), with B s = -t g
        phi, tau = self._scales(b, yhy / ys, len(s), first)
        v = s / ys - hy / yhy
        kept = torch.where(learnt, 1 / tau, 1.0)
        removed, added, secant = (torch.where(learnt, c, 0.0) for c in (1 / (tau * yhy), phi * yhy / tau, 1 / ys))
        updated = (
            kept * inverse - torch.outer(removed * hy, hy) + torch.outer(added * v, v) + torch.outer(secant * s, s)
        )
        return updated, learnt

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


class QuasiNewton(torch.optim.Optimizer):
    """A self-scaled quasi-Newton method, one evaluation of loss and gradient in each step.

    Between steps the parameters are the accepted ones, not the trial point of a line search.

    Args:
        params: The parameters.
        update: The step.
        decrease: The constant c1 of the strong Wolfe conditions: the decrease of the loss that is enough.
        curvature: The constant c2: the part of the first slope that may be left.
        max_eval: The largest number of evaluations of a line search.

    Raises:
        UsageError: Not 0 < decrease < curvature < 1, no evaluation is allowed, or the inverse Hessian does not fit
            into memory.
    """

    def __init__(
        self, params: Iterable[Tensor], update: SelfScaledUpdate, decrease: float, curvature: float, max_eval: int
    ):
        if not 0 < decrease < curvature < 1:
            raise UsageError(
                f"optimizer.decrease={decrease} and curvature={curvature} make no line search: expected "
                "0 < decrease < curvature < 1, such as 1e-4 and 0.9"
            )
        if not max_eval >= 1:
            raise UsageError(
                f"optimizer.max_eval={max_eval} allows no evaluation: expected a positive integer, such as 25"
            )
        super().__init__(params, {"decrease": decrease, "curvature": curvature, "max_eval": max_eval})
        self.update = update
        count = sum(p.numel() for p in self._parameters)
        check_memory("the inverse Hessian of the optimizer", count * count, copies=COPIES)

    @property
    def _parameters(self) -> list[Tensor]:
        return list(self.param_groups[0]["params"])

    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]  # torch's closure is optional
        """Take one step.

        Args:
            closure: Computes the loss and its gradients.

        Returns:
            The loss of the parameters before the step.
        """
        parameters = self._parameters
        state = self.update.state(self, parameters)
        loss, gradient = loss_and_gradient(parameters, state[0], closure)
        with torch.no_grad():
            after = self.update.step(state, gradient, loss, self.update.hyper(self))
        self.update.put_back(self, parameters, after)
        return self.update.loss_before(state, loss)

    @property
    def in_search(self) -> bool:
        """Whether a line search has evaluated trials that it would lose if the loss became another one."""
        remembered = self.state[self._parameters[0]].get(REMEMBERED)
        return remembered is not None and float(Search(*Memory(*remembered).search.unbind()).evaluations) > 0

    def new_points(self) -> None:
        """Evaluate the accepted parameters again before the next search, because the loss has become another one."""
        parameters = self._parameters
        memory = Memory(*self.update.state(self, parameters))
        if float(memory.flags[0]) == SEARCHING:
            flags = memory.flags.clone()
            flags[0] = NEW_POINTS
            self.update.put_back(self, parameters, memory._replace(point=memory.x.clone(), flags=flags))


class SSBroyden(QuasiNewton):
    """The self-scaled Broyden method, see `SelfScaledUpdate` and `QuasiNewton`."""

    def __init__(self, params: Iterable[Tensor], decrease: float = 1e-4, curvature: float = 0.9, max_eval: int = 25):
        super().__init__(params, SelfScaledUpdate(broyden=True), decrease, curvature, max_eval)


class SSBFGS(QuasiNewton):
    """The self-scaled BFGS method, see `SelfScaledUpdate` and `QuasiNewton`."""

    def __init__(self, params: Iterable[Tensor], decrease: float = 1e-4, curvature: float = 0.9, max_eval: int = 25):
        super().__init__(params, SelfScaledUpdate(broyden=False), decrease, curvature, max_eval)

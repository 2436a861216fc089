"""Quasi-Newton steps, one trial of a line search each: what the self-scaled methods and L-BFGS share.

One step is one evaluation of loss and gradient: at a trial point of the line search, whose gradient is used again where
the point is accepted. A step is a pure function without branches (`QuasiNewtonUpdate`). It is compiled together with
the gradient, line search included, and taken for many runs at once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pde_train.errors import UsageError
from pde_train.optimizers.base import REMEMBERED, Parameters, Update, flat, loss_and_gradient, write
from pde_train.optimizers.line_search import Search, begin, evaluated

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
        curvature: What the method has learnt of the Hessian.
        search: The scalars of the line search, one after another.
        flags: What the next evaluation is, and whether nothing has been learnt yet.
    """

    point: Tensor
    x: Tensor
    gradient: Tensor
    direction: Tensor
    low_gradient: Tensor
    curvature: tuple[Tensor, ...]
    search: Tensor
    flags: Tensor

    @classmethod
    def of(cls, state: Sequence[Tensor]) -> Memory:
        """From a list of tensors, as `listed` gives them."""
        *curvature, search, flags = state[5:]
        return cls(state[0], state[1], state[2], state[3], state[4], tuple(curvature), search, flags)

    def listed(self) -> list[Tensor]:
        """All tensors, one after another."""
        return [*self[:5], *self.curvature, self.search, self.flags]


class Step(NamedTuple):
    """An accepted step, from which curvature is learnt.

    Attributes:
        s: The step (p,).
        y: The change (p,) of the gradient.
        length: Its length t in units of the direction, s = t d.
        gradient: The gradient (p,) before it.
        taken: Whether there is one: the line search may go on.
        first: Whether nothing has been learnt before.
    """

    s: Tensor
    y: Tensor
    length: Tensor
    gradient: Tensor
    taken: Tensor
    first: Tensor

    def usable(self) -> Tensor:
        """Whether y^T s is positive beyond rounding."""
        least = torch.finfo(self.y.dtype).eps * torch.linalg.vector_norm(self.y) * torch.linalg.vector_norm(self.s)
        usable: Tensor = self.taken & (self.y @ self.s > least)
        return usable


class QuasiNewtonUpdate(Update):
    """A step of a quasi-Newton method as a pure function: the line search, and what becomes of its trials.

    A search that fails, or a direction that does not descend, makes the method forget what it has learnt.
    """

    @abstractmethod
    def nothing_learnt(self, like: Tensor) -> tuple[Tensor, ...]:
        """The curvature of the identity, for parameters like these (p,)."""

    @abstractmethod
    def learn(self, curvature: tuple[Tensor, ...], step: Step) -> tuple[tuple[Tensor, ...], Tensor]:
        """The curvature after a step, and whether anything has been learnt from it; as it was, where not."""

    @abstractmethod
    def newton(self, curvature: tuple[Tensor, ...], gradient: Tensor) -> Tensor:
        """The inverse Hessian times a gradient (p,)."""

    def hyper(self, optimizer: torch.optim.Optimizer) -> Tensor:
        group = optimizer.param_groups[0]
        numbers = [float(group[name]) for name in ("decrease", "curvature", "max_eval", "longest")]
        return torch.tensor(numbers, dtype=torch.float64, device=group["params"][0].device)

    def state(self, optimizer: torch.optim.Optimizer, parameters: Parameters) -> list[Tensor]:
        if remembered := optimizer.state[parameters[0]].get(REMEMBERED):
            return list(remembered)
        return self.beginning(flat(parameters))

    def beginning(self, point: Tensor) -> list[Tensor]:
        """The state at parameters (p,) before the first evaluation."""
        nothing, number = torch.zeros_like(point), point.new_ones(())
        search = torch.stack(begin(number, -number, number))
        flags = point.new_tensor([START, 1.0])
        curvature = self.nothing_learnt(point)
        memory = Memory(point, point.clone(), nothing, nothing.clone(), nothing.clone(), curvature, search, flags)
        return memory.listed()

    def put_back(self, optimizer: torch.optim.Optimizer, parameters: Parameters, state: Sequence[Tensor]) -> None:
        write(parameters, self.parameters(state))
        optimizer.state[parameters[0]] = {REMEMBERED: list(state)}

    def memory(self, state: Sequence[Tensor]) -> Memory:
        """What a state says of the line search and of curvature."""
        return Memory.of(state)

    def begun_again(self, state: Sequence[Tensor]) -> list[Tensor]:
        """A state that keeps what was learnt, and evaluates the accepted parameters before the next search."""
        memory = Memory.of(state)
        kind, fresh = memory.flags.unbind()
        flags = torch.stack([torch.where(kind == SEARCHING, NEW_POINTS, kind), fresh])
        return memory._replace(point=memory.x.clone(), flags=flags).listed()

    def parameters(self, state: Sequence[Tensor]) -> Tensor:
        return self.memory(state).x

    def loss_before(self, state: Sequence[Tensor], loss: Tensor) -> Tensor:
        memory = self.memory(state)
        return torch.where(memory.flags[0] == SEARCHING, memory.search[0], loss)

    def step(self, state: Sequence[Tensor], gradient: Tensor, loss: Tensor, hyper: Tensor) -> list[Tensor]:
        """Evaluate a trial; where it ends the search, learn from the step and begin the next search."""
        m = Memory.of(state)
        kind, fresh = m.flags.unbind()
        search = Search(*m.search.unbind())
        searching, afresh = kind == SEARCHING, kind == START
        smallest = torch.finfo(loss.dtype).eps * m.x.abs().max() / m.direction.abs().max()
        outcome = evaluated(search, loss, gradient @ m.direction, smallest, hyper[:3])
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

        step = Step(s, new_gradient - m.gradient, length, m.gradient, moved, fresh > 0)
        curvature, learnt = self.learn(m.curvature, step)
        direction = -self.newton(curvature, new_gradient)
        reset = afresh | failed | (~(direction @ new_gradient < 0) & (moved | ~searching))
        identity = self.nothing_learnt(x)
        curvature = tuple(torch.where(reset, new, old) for new, old in zip(identity, curvature, strict=True))
        direction = torch.where(reset, -new_gradient, direction)
        fresh = torch.where(reset, 1.0, torch.where(learnt, 0.0, fresh))
        slope = new_gradient @ direction
        expected = 2 * FURTHER * (new_loss - search.loss) / slope
        trial = torch.where(moved & (expected > 0), expected.clamp(SHORTEST, 1.0), 1.0)
        trial = torch.where(fresh > 0, (1 / new_gradient.abs().sum()).clamp(max=1.0), trial)
        begun = torch.stack(begin(new_loss, slope, hyper[3].to(loss) * trial))

        ended = moved | failed | ~searching
        numbers = torch.where(ended, begun, torch.stack(outcome.search))
        direction = torch.where(ended, direction, m.direction)
        low_gradient = torch.where(ended, new_gradient, low_gradient)
        flags = torch.stack([torch.full_like(fresh, SEARCHING), fresh])
        point = x + numbers[2] * direction
        return Memory(point, x, new_gradient, direction, low_gradient, curvature, numbers, flags).listed()


class QuasiNewton(torch.optim.Optimizer):
    """A quasi-Newton method, one evaluation of loss and gradient in each step.

    Between steps the parameters are the accepted ones, not the trial point of a line search.

    Args:
        params: The parameters.
        update: The step.
        decrease: The constant c1 of the strong Wolfe conditions: the decrease of the loss that is enough.
        curvature: The constant c2: the part of the first slope that may be left.
        max_eval: The largest number of evaluations of a line search.
        longest: The longest first trial of a line search, in units of the quasi-Newton step.
        numbers: Further numbers of the update.

    Raises:
        UsageError: Not 0 < decrease < curvature < 1, no evaluation is allowed, or parameters come in several groups.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        update: QuasiNewtonUpdate,
        decrease: float = 1e-4,
        curvature: float = 0.9,
        max_eval: int = 25,
        longest: float = 1.0,
        **numbers: Any,
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
        search = {"decrease": decrease, "curvature": curvature, "max_eval": max_eval, "longest": longest}
        super().__init__(params, {**search, **numbers})
        if len(self.param_groups) != 1:
            raise UsageError(
                f"{type(self).__name__} was given {len(self.param_groups)} groups of parameters, and searches along a "
                "line for all of them: expected one group"
            )
        self.update = update

    @property
    def parameters(self) -> list[Tensor]:
        """The parameters, in the order of the vectors of the update."""
        return list(self.param_groups[0]["params"])

    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]  # torch's closure is optional
        """Take one step.

        Args:
            closure: Computes the loss and its gradients.

        Returns:
            The loss of the parameters before the step.
        """
        parameters = self.parameters
        state = self.update.state(self, parameters)
        loss, gradient = loss_and_gradient(parameters, state[0], closure)
        with torch.no_grad():
            after = self.update.step(state, gradient, loss, self.update.hyper(self))
        self.update.put_back(self, parameters, after)
        return self.update.loss_before(state, loss)

    @property
    def in_search(self) -> bool:
        """Whether a line search has evaluated trials that it would lose if the loss became another one."""
        remembered = self.state[self.parameters[0]].get(REMEMBERED)
        return remembered is not None and float(Search(*self.update.memory(remembered).search).evaluations) > 0

    def new_points(self) -> None:
        """Evaluate the accepted parameters again before the next search, because the loss has become another one."""
        parameters = self.parameters
        self.update.put_back(self, parameters, self.update.begun_again(self.update.state(self, parameters)))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if "state" not in state_dict or any(
            state and REMEMBERED not in state for state in state_dict["state"].values()
        ):
            raise UsageError(
                f"the state of {type(self).__name__} is that of another version: expected one that this version has "
                "saved, begin the run anew"
            )
        groups = [{**self.defaults, **group} for group in state_dict["param_groups"]]  # an earlier version had fewer
        super().load_state_dict({**state_dict, "param_groups": groups})
        own, saved = self.state.get(self.parameters[0]), state_dict["state"].get(groups[0]["params"][0])
        if own and saved:  # torch gives all of it the precision of the parameters
            pairs = zip(own[REMEMBERED], saved[REMEMBERED], strict=True)
            own[REMEMBERED] = [tensor.to(before.dtype) for tensor, before in pairs]

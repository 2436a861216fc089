"""The training points of a run and the weights of its equations: when they change, and how they are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pde_train.errors import RunError, UsageError
from pde_train.geometry import Batch, Points, without_factors
from pde_train.problem import Problem
from pde_train.weighting.base import Weighting, initial, weighted


class TrainingPoints:
    """The points on which one run is trained, with the weights of their equations.

    Points come from a generator of the run's own. Its state before the last draw gives the same points again, unless
    the draw followed the residual of the model as it was then: the points themselves are kept in that case.

    Args:
        problem: Equation, model, differentiator and sampler.
        weighting: Chooses the weights.
        redraws: Whether points may be drawn again for another reason than the sampler's.

    Raises:
        UsageError: The weighting cannot be used with this problem or with points that change, or the sampler has no
            other points.
    """

    def __init__(self, problem: Problem, weighting: Weighting, redraws: bool):
        weighting.check(problem, bool(problem.sampler.resample_every) or redraws)
        if redraws and problem.sampler.repeats_itself:
            raise UsageError(
                f"method.redraw asks for other points, and {type(problem.sampler).__name__} has the same ones each "
                "time: expected method.redraw=null, or a sampler that draws, such as sampler=uniform"
            )
        self._problem = problem
        self._weighting = weighting
        self._generator = np.random.default_rng(problem.sampler.seed)
        self._weighed = -1
        self.weights = initial(problem)
        self.batch: Batch
        self._drawn_from = self._generator.bit_generator.state
        self._place(problem.draw(self._generator))

    def of_step(self, step: int) -> Batch:
        """The points that a step sees: all that were drawn, or its mini-batch of them."""
        return self._problem.sampler.mini_batch(self.batch, step)

    def are_due(self, step: int) -> bool:
        """Whether the sampler has new points for the steps from this one on."""
        every = self._problem.sampler.resample_every
        return bool(every and step and step % every == 0)

    def redraw(self) -> None:
        """Draw other points, which may follow the residual of the model as it is.

        Raises:
            RunError: They are more or fewer than before.
        """
        self._drawn_from = self._generator.bit_generator.state
        batch = self._problem.redraw(self._generator)
        for region, points in batch.items():
            if (now := len(points.x)) != (before := len(self.batch[region].x)):
                raise RunError(
                    f"{type(self._problem.sampler).__name__} has drawn {now} points of region {region!r} where it had "
                    f"drawn {before}: expected as many each time, correct what it draws"
                )
        if any(weight.dim() for weight in self.weights.values()):  # weights of points, not of equations
            self.weights = self._weighting.update(self._problem, batch, self.weights)
        self._place(batch)

    def weigh(self, step: int) -> bool:
        """Choose new weights where they are due at this step; whether they were."""
        weighting = self._weighting
        if weighting.fixed or step % weighting.every or step == self._weighed:
            return False
        self.weights = weighting.update(self._problem, self.batch, self.weights)
        self._place(self.batch)
        self._weighed = step
        return True

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` makes the same points and weights of."""
        state = {"weights": dict(self.weights), "weighed": self._weighed}
        if not self._problem.sampler.adapts:
            return {**state, "drawn_from": self._drawn_from}
        points = {
            region: {name: tensor for name, tensor in vars(of_region).items() if tensor is not None}
            for region, of_region in without_factors(self.batch).items()
        }
        return {**state, "drawn_from": self._generator.bit_generator.state, "points": points}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take points and weights from a checkpoint."""
        self.weights = {name: weight.to(self._problem.device) for name, weight in state["weights"].items()}
        self._weighed = state["weighed"]
        self._generator.bit_generator.state = self._drawn_from = state["drawn_from"]
        if "points" not in state:
            self._place(self._problem.draw(self._generator))
        else:
            self._place(self._problem.placed({name: Points(**fields) for name, fields in state["points"].items()}))

    def _place(self, batch: Batch) -> None:
        """Take these points from now on, with the weights of their equations."""
        self.batch = batch if self._weighting.fixed else weighted(self._problem, batch, self.weights)

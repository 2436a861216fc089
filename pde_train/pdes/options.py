"""What every choice of the group `pde` can be given beside its own fields."""

from __future__ import annotations

from dataclasses import dataclass

from pde_train.errors import UsageError
from pde_train.pdes.base import PDE

CONDITIONS = ("soft", "exact")


@dataclass(frozen=True)
class Options:
    """Options of all PDEs.

    Attributes:
        conditions: `soft`, which are terms of the loss; or `exact`, where those that the ansatz of the PDE fulfils hold
            whatever the parameters are, see `PDE.ansatz`.

    Raises:
        UsageError: The word is neither.
    """

    conditions: str = "soft"

    def __post_init__(self) -> None:
        if self.conditions not in CONDITIONS:
            raise UsageError(
                f"pde.conditions={self.conditions} is unknown: expected one of {', '.join(CONDITIONS)}, choose one"
            )

    def of(self, pde: PDE) -> PDE:
        """The PDE with conditions of this kind.

        Args:
            pde: The PDE with soft conditions.

        Returns:
            The PDE without the equations that its ansatz fulfils, where conditions are exact.

        Raises:
            UsageError: It has no ansatz.
        """
        if self.conditions == "soft":
            return pde
        if not pde.fulfilled:
            raise UsageError(
                f"pde.conditions=exact needs an ansatz, and {type(pde).__name__} has none: expected a method "
                "`ansatz` marked by @fulfils, choose pde.conditions=soft"
            )
        return pde.with_exact_conditions()

"""What every choice of the group `pde` can be given beside its own fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pde_train.errors import UsageError
from pde_train.pdes.base import PDE
from pde_train.pdes.inverse import Data, Learned

Made = TypeVar("Made")

CONDITIONS = ("soft", "exact")


@dataclass(frozen=True)
class Options:
    """Options of all PDEs.

    Attributes:
        conditions: `soft`, which are terms of the loss; or `exact`, where those that the ansatz of the PDE fulfils hold
            whatever the parameters are, see `PDE.ansatz`.
        learn: Numbers of the PDE that are learnt with the network, each with `start` and, where it has bounds, `lower`
            and `upper`, see `Learned`.
        data: Measured values, see `Data`.

    Raises:
        UsageError: A word or a key is unknown, or a value cannot be used.
    """

    conditions: str = "soft"
    learn: Mapping[str, Mapping[str, float]] | None = None
    data: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.conditions not in CONDITIONS:
            raise UsageError(
                f"pde.conditions={self.conditions} is unknown: expected one of {', '.join(CONDITIONS)}, choose one"
            )

    def of(self, pde: PDE) -> PDE:
        """The PDE with these options.

        Args:
            pde: The PDE with soft conditions.

        Returns:
            The PDE with measured values and numbers to learn, and without the equations that its ansatz fulfils,
            where conditions are exact.

        Raises:
            UsageError: It has no ansatz or no such number, or the values cannot be read.
        """
        if self.learn or self.data is not None:
            learned = {name: made(Learned, f"pde.learn.{name}", given) for name, given in (self.learn or {}).items()}
            data = None if self.data is None else made(Data, "pde.data", self.data)
            pde = pde.with_inverse(learned, data)
        if self.conditions == "soft":
            return pde
        if not pde.fulfilled:
            raise UsageError(
                f"pde.conditions=exact needs an ansatz, and {type(pde).__name__} has none: expected a method "
                "`ansatz` marked by @fulfils, choose pde.conditions=soft"
            )
        return pde.with_exact_conditions()


def made(kind: type[Made], path: str, given: Mapping[str, Any]) -> Made:
    """An object from its keys in the configuration.

    Args:
        kind: Its class.
        path: Where the keys stand.
        given: The keys.

    Returns:
        The object.

    Raises:
        UsageError: A key is unknown, or one is missing.
    """
    try:
        return kind(**given)
    except TypeError as error:
        known = ", ".join(kind.__annotations__)
        raise UsageError(f"{path}={dict(given)} is no {kind.__name__} ({error}): expected the keys {known}") from error

"""The pieces of boundaries: their names, their normals, and what of them is left where domains are combined."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from pde_train.errors import UsageError
from pde_train.geometry import NEAR, Domain, Part

RESERVED = ("interior", "boundary", "initial", "periodic", "data")
"""Names of regions that no hole may have."""

AMBIGUOUS = (
    "@on cannot tell the pieces {} and {} of a domain apart: expected names that differ, none of which begins with "
    "another one and _, such as hole_1 and hole_2, choose others"
)

Contains = Callable[[np.ndarray], np.ndarray]
"""Which of points (n, d) belong to a set, as a mask (n,)."""


def bound(domain: Domain, lower: Sequence[float] | np.ndarray, upper: Sequence[float] | np.ndarray) -> None:
    """Give a frozen domain the box around it."""
    object.__setattr__(domain, "lower", tuple(map(float, lower)))
    object.__setattr__(domain, "upper", tuple(map(float, upper)))


def check_names(names: Iterable[str]) -> None:
    """Refuse names of pieces by which `@on` would find none, or several.

    Raises:
        UsageError: A name is no word, that of another region, or the beginning of another one.
    """
    for name in names:
        if not name.isidentifier() or name in RESERVED:
            raise UsageError(
                f"{name!r} names no piece of a boundary: expected a word other than {', '.join(RESERVED)}, such as hole"
            )
        if longer := [other for other in names if other.startswith(f"{name}_")]:
            raise UsageError(AMBIGUOUS.format(name, longer[0]))


def with_pieces(found: Mapping[str, Part], name: str, pieces: Mapping[str, Part]) -> dict[str, Part]:
    """Pieces of a boundary, and those of one more hole, member or point, each of which has a name of its own.

    Args:
        found: The pieces so far, by name.
        name: Of the hole, member or point.
        pieces: Its pieces, by name.

    Returns:
        All of them.

    Raises:
        UsageError: Two cannot be told apart.
    """
    for other in found:
        if other == name or other.startswith(f"{name}_") or any(key.startswith(f"{other}_") for key in (name, *pieces)):
            raise UsageError(AMBIGUOUS.format(name, other))
    return {**found, **pieces}


def check_dimensions(domains: Mapping[str, Domain]) -> None:
    """Refuse to combine domains of different dimensions.

    Raises:
        UsageError: They differ, or there is no domain.
    """
    if len({domain.dimension for domain in domains.values()}) != 1:
        each = ", ".join(f"{name} has {domain.dimension}" for name, domain in domains.items()) or "there is none"
        raise UsageError(
            f"domains of different dimensions cannot be combined ({each}): expected the same, with InTime around all "
            "of them where there is time"
        )


def named(name: str, parts: Mapping[str, Part]) -> dict[str, Part]:
    """The pieces of a hole under its name."""
    return {name if len(parts) == 1 else f"{name}_{key}": part for key, part in parts.items()}


def turned(part: Part) -> Part:
    """A piece with its normals the other way."""

    def place(unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, normals = part.place(unit)
        return x, -normals

    return replace(part, place=place, keeps=lambda x, normals: part.keeps(x, -normals))


def is_outside(domain: Domain, x: np.ndarray) -> np.ndarray:
    """Which of points (n, d) a domain does not contain, as a mask (n,)."""
    return ~domain.contains(x)


def on_boundary(domain: Domain, parts: Mapping[str, Part], others: Sequence[Contains] = ()) -> dict[str, Part]:
    """What of some pieces lies on the boundary of a domain, and on that of none of some other sets.

    A boundary is where the set is on the one side and not on the other.

    Args:
        domain: The domain.
        parts: The pieces.
        others: The sets whose pieces of the same boundary are there already, so that what they share is there once.

    Returns:
        The pieces without the rest.
    """
    step = NEAR * float(max(domain.lengths))

    def kept(part: Part) -> Part:
        def keeps(x: np.ndarray, normals: np.ndarray) -> np.ndarray:
            inner, outer = x - step * normals, x + step * normals
            kept: np.ndarray = domain.contains(inner) & ~domain.contains(outer) & part.keeps(x, normals)
            for contains in others:
                kept &= ~contains(inner) | contains(outer)
            return kept

        return replace(part, keeps=keeps)

    return {name: kept(part) for name, part in parts.items()}

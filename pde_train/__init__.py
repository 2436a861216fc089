"""What does the way of taking derivatives do to the training of neural networks on differential equations?

The names below come from `pde_train.api`, which is imported when one of them is first used, so that the command line
answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pde_train.api import (
        Experiment,
        LoadedRun,
        TruncatedEntropy,
        compare,
        compose,
        derivatives,
        differentiator,
        load_run,
        load_sweep,
        model,
        spectrum,
        sweep,
        truncated_entropy,
    )

__version__ = "0.1.0"

__all__ = [
    "Experiment",
    "LoadedRun",
    "TruncatedEntropy",
    "compare",
    "compose",
    "derivatives",
    "differentiator",
    "load_run",
    "load_sweep",
    "model",
    "spectrum",
    "sweep",
    "truncated_entropy",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("pde_train.api"), name)
    raise AttributeError(f"module 'pde_train' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

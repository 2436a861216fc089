"""The independently computed anchors of random features: every row, two digits where values stand above rounding.

1D, 100 features, 200 points; columns: s_1, s_min, count above 1e-12 s_1, H_raw / log N_a at 1e-8, residual, error.
"""

from pathlib import Path

import pytest
from fixtures import Compose

from pde_train.experiment import build
from pde_train.runs.run import run

pytestmark = pytest.mark.usefixtures("without_figures")

ANCHORS = [
    ("tanh", "poisson_1d", "reverse", 156.1, 2.6e-17, 45, 0.6067, 1.8e-14, 3.8e-14),
    ("tanh", "poisson_1d", "1e-2", 156.0, 4.4e-12, 45, 0.6066, 8.6e-13, 8.2e-5),
    ("tanh", "poisson_1d", "1e-3", 156.1, 4.4e-10, 100, 0.6067, 7.3e-11, 8.2e-7),
    ("tanh", "poisson_1d", "1e-4", 156.1, 4.3e-8, 100, 0.6067, 3.8e-9, 8.5e-9),
    ("tanh", "biharmonic_1d", "reverse", 3609, 1.3e-17, 49, 0.6331, 3.7e-13, 3.2e-13),
    ("tanh", "biharmonic_1d", "1e-2", 3606, 2.1e-7, 100, 0.6330, 4.0e-9, 1.6e-4),
    ("tanh", "biharmonic_1d", "1e-3", 3609, 1.9e-3, 100, 0.5072, 1.4e-5, 2.6e-5),
    ("tanh", "biharmonic_1d", "1e-4", 3605, 1.7e1, 100, 0.6854, 4.8e-2, 2.5),
    ("sin", "poisson_1d", "reverse", 363.5, 3.3e-17, 16, 0.4773, 1.4e-14, 3.0e-14),
    ("sin", "poisson_1d", "1e-3", 363.5, 5.3e-10, 100, 0.4773, 3.0e-10, 8.2e-7),
    ("sin", "biharmonic_1d", "reverse", 2594, 1.3e-17, 18, 0.4105, 4.8e-13, 1.9e-13),
    ("sin", "biharmonic_1d", "1e-2", 2594, 2.3e-7, 100, 0.4105, 1.1e-8, 1.6e-4),
    ("sin", "biharmonic_1d", "1e-3", 2594, 2.2e-3, 100, 0.2357, 4.0e-5, 7.2e-5),
    ("sin", "biharmonic_1d", "1e-4", 2599, 1.9e1, 100, 0.8235, 6.3e-2, 2.6),
]


@pytest.mark.parametrize(
    ("activation", "pde", "how", "largest", "smallest", "count", "entropy", "residual", "error"), ANCHORS
)
def test_anchor(
    compose: Compose,
    tmp_path: Path,
    activation: str,
    pde: str,
    how: str,
    largest: float,
    smallest: float,
    count: int,
    entropy: float,
    residual: float,
    error: float,
) -> None:
    differentiator = how if how == "reverse" else f"finite_difference/{how}"
    overrides = [f"model.activation={activation}", f"pde={pde}", f"differentiator={differentiator}"]
    metrics = run(build(compose("experiment=rfm_anchors", *overrides)), tmp_path).last()
    coarse = how == "1e-4" and pde == "biharmonic_1d"  # rounding is 100 % of this derivative
    assert metrics["spectrum/max"] == pytest.approx(largest, rel=5e-3)
    assert metrics["spectrum/count/1e-12"] == count
    assert metrics["entropy/1e-08"] == pytest.approx(entropy, abs=0.002 if coarse else 1e-4)
    if how == "reverse":
        # rounding alone: the order of magnitude, or better
        assert metrics["spectrum/min"] < 10 * smallest
        assert metrics["residual"] < 10 * residual
        assert metrics["error_l2"] < 10 * error
        return
    # s_min of finite differences is rounding noise that follows the law eps / h^n: within 10 %
    assert metrics["spectrum/min"] == pytest.approx(smallest, rel=0.1)
    # the residual's size is that noise in the least-squares solution
    assert metrics["residual"] == pytest.approx(residual, rel=0.5)
    # truncation decides the error until rounding takes over, where only its size is sure
    truncation_rules = (pde, how) in [("poisson_1d", "1e-2"), ("poisson_1d", "1e-3"), ("biharmonic_1d", "1e-2")]
    assert metrics["error_l2"] == pytest.approx(error, rel=0.05 if truncation_rules else 2)

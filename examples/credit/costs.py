"""What a wrong credit decision costs, and the threshold that follows from it.

The unit is the interest margin that is lost when a good client is refused. A missed default costs what is not
recovered of the loan: with 40.3 % lost given default and a margin of 7 % of the loan, 0.403 / 0.07 = 5.757 units.
Refusing at probability p costs (1 - p) on average, lending costs 5.757 p, so that the calibrated probability at
which both cost the same is 1 / (1 + 5.757) = 0.148 (Elkan, The Foundations of Cost-Sensitive Learning, 2001).

Loss and margin are no bank's figures: they are plausible ones, chosen so that the threshold is the 0.148 that an
existing client works with.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LOSS_GIVEN_DEFAULT = 0.403  # share of the loan that is never recovered
MARGIN = 0.07  # share of the loan that a good client brings
MISSED_DEFAULT_COST = round(LOSS_GIVEN_DEFAULT / MARGIN, 3)  # 5.757 refused good clients
THRESHOLD = round(1 / (1 + MISSED_DEFAULT_COST), 3)
GRID = np.arange(1, 1_000) / 1_000


@dataclass(frozen=True, slots=True)
class CostCheck:
    """What the threshold costs on loans that the model has not seen, in refused good clients per application."""

    expected_best: float  # threshold of least cost if each probability is true: the rule itself, on these scores
    observed_best: float  # threshold of least cost with the outcomes that came, which a sample moves about
    cost: float  # at THRESHOLD, with the outcomes that came
    best_cost: float  # at observed_best


def cost(defaulted: NDArray[np.float64], probability: NDArray[np.float64], threshold: float) -> float:
    """Return the mean cost of refusing from `threshold` on; `defaulted` is 0/1, or a probability of default."""
    refused = probability >= threshold
    return float(np.mean(np.where(refused, 1 - defaulted, MISSED_DEFAULT_COST * defaulted)))


def check_threshold(defaulted: NDArray[np.float64], probability: NDArray[np.float64]) -> CostCheck:
    """Return what THRESHOLD costs on unseen loans; raise ValueError where it is not the one to use.

    It must be the best to three decimals if the probabilities are true, and they must be true enough: with the
    outcomes that came, no threshold may save more than 2 % of the cost.
    """
    expected = [cost(probability, probability, threshold) for threshold in GRID]
    observed = [cost(defaulted, probability, threshold) for threshold in GRID]
    check = CostCheck(
        expected_best=float(GRID[int(np.argmin(expected))]),
        observed_best=float(GRID[int(np.argmin(observed))]),
        cost=cost(defaulted, probability, THRESHOLD),
        best_cost=float(np.min(observed)),
    )
    if check.expected_best != THRESHOLD:
        raise ValueError(f"the threshold of least expected cost is {check.expected_best}, not {THRESHOLD}")
    if check.cost > 1.02 * check.best_cost:
        raise ValueError(f"{THRESHOLD} costs {check.cost:.4f} and {check.observed_best} only {check.best_cost:.4f}")
    return check

"""Synthetic customers: no row describes a real person, every number comes from the seeded generator below.

`rival=True` draws the customers after a rival has entered the market: newer ones, on monthly contracts, who call the
support more often, and leave for the price. It makes drift that a model of the earlier customers cannot know.
"""

import numpy as np
import pandas as pd

TARGET = "left"
PLANS = ["basic", "family", "plus"]
_FEES = {"basic": 12.0, "family": 34.0, "plus": 21.0}


def generate(rows: int = 4_000, *, seed: int = 20_240_605, rival: bool = False) -> pd.DataFrame:
    """Return `rows` customers: an id, six features, and the 0/1 column `left`."""
    rng = np.random.default_rng(seed)
    plan = rng.choice(PLANS, rows, p=[0.45, 0.2, 0.35])
    months = np.floor(rng.gamma(1.6, 9 if rival else 15, rows)).astype(np.int64)
    yearly = rng.random(rows) < (0.25 if rival else 0.5)
    fee = np.round(np.array([_FEES[each] for each in plan]) * rng.lognormal(0, 0.15, rows), 2)
    calls = rng.poisson(1.8 if rival else 1.0, rows)
    data = np.round(rng.gamma(2.0, 4.0, rows) * np.where(plan == "basic", 0.5, 1.3), 1)
    log_odds = (
        -1.5
        - 0.05 * np.minimum(months, 36)
        - 1.4 * yearly
        + 0.5 * calls
        + (0.09 if rival else 0.03) * (fee - 15)
        + 0.8 * ((calls >= 3) & (months < 12))
    )
    left = (rng.random(rows) < 1 / (1 + np.exp(-log_odds))).astype(np.int64)
    return pd.DataFrame(
        {
            "customer": [f"C{number:05}" for number in range(1, rows + 1)],
            "months": months,
            "plan": plan.astype(object),
            "yearly_contract": yearly,
            "monthly_fee": fee,
            "support_calls": calls,
            "data_gb": data,
            TARGET: left,
        }
    )

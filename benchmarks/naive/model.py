"""The same pipeline, asked as everyone asks it: one DataFrame for each row."""

import os
from functools import lru_cache
from typing import Any

import joblib
import pandas as pd


@lru_cache(maxsize=1)
def pipeline() -> Any:
    """Return the pipeline of this process, loaded at the first call."""
    return joblib.load(os.environ["NAIVE_MODEL"])


def probability_of(features: dict[str, Any]) -> float:
    """Return the probability of the positive class for one row."""
    return float(pipeline().predict_proba(pd.DataFrame([features]))[0, 1])

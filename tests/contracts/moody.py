"""A model that fails on demand: it raises on one value and never returns on another."""

import time
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

RAISES, SLEEPS = 1_000_000.0, 2_000_000.0


class Moody(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Says that the probability grows with the only feature, `mood`."""

    def fit(self, x: Any, y: Any) -> "Moody":
        self.classes_ = np.unique(y)
        self.n_features_in_ = 1
        self.feature_names_in_ = np.array(["mood"], dtype=object)
        return self

    def predict_proba(self, x: Any) -> Any:
        mood = np.asarray(x, dtype=float)[:, 0]
        if (mood == RAISES).any():
            raise ArithmeticError("CANARY of the model's own words")
        if (mood == SLEEPS).any():
            time.sleep(60)
        positive = 1 / (1 + np.exp(-np.clip(mood, -5, 5)))
        return np.column_stack([1 - positive, positive])

    def predict(self, x: Any) -> Any:
        return self.classes_[(self.predict_proba(x)[:, 1] >= 0.5).astype(int)]

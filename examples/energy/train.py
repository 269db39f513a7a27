"""Fit the energy model: one-hot and ordered categories, numbers as they are, boosted regression trees."""

from datetime import UTC, datetime

import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.metrics import mean_absolute_error, mean_absolute_percentage_error, r2_score, root_mean_squared_error
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from examples.energy.data import GLAZINGS, INSULATIONS, TARGET, generate
from examples.energy.features import FEATURES, RULES
from examples.frames import records
from shared.cards.card import Card
from shared.packages.package import UNHASHED, Package
from shared.packages.sample import canonical_rows
from shared.scoring.threads import one_thread

NOMINAL = ["use", "climate_zone", "heating"]
ORDERED = {"wall_insulation": INSULATIONS, "glazing": GLAZINGS}


def train(rows: int = 6_000) -> Package:
    """Return the fitted pipeline with its card (hold-out metrics on a quarter of the rows) and reference rows."""
    x_train, x_test, y_train, y_test = split(rows)
    with one_thread():
        model = pipeline().fit(x_train, y_train)
        predicted = model.predict(x_test)
    card = Card(
        name="energy",
        version=1,
        description="Final energy that a building uses in a year, in kWh per m² of heated area (synthetic data).",
        task="regression",
        sha256=UNHASHED,
        features=FEATURES,
        rules=RULES,
        target=TARGET,
        trained_at=datetime.now(UTC),
        metrics={
            "holdout_rows": len(y_test),
            "r2": float(r2_score(y_test, predicted)),
            "rmse": float(root_mean_squared_error(y_test, predicted)),
            "mae": float(mean_absolute_error(y_test, predicted)),
            "mape": float(mean_absolute_percentage_error(y_test, predicted)),
        },
        notes="Synthetic data from examples/energy/data.py: no real building.",
    )
    return Package(card, model, canonical_rows(card, records(x_test), source="energy hold-out"))


def split(rows: int = 6_000) -> tuple[pd.DataFrame, pd.DataFrame, pd.Series, pd.Series]:
    """Return the features to fit and to test on, then the answers: a quarter of the generated rows is the hold-out."""
    frame = generate(rows)
    names = [feature.name for feature in FEATURES]
    x_train, x_test, y_train, y_test = train_test_split(frame[names], frame[TARGET], test_size=0.25, random_state=7)
    return x_train, x_test, y_train, y_test


def pipeline() -> Pipeline:
    """Return the pipeline, not fitted yet."""
    numbers = [feature.name for feature in FEATURES if feature.type != "string"]
    encode = ColumnTransformer(
        [
            ("nominal", OneHotEncoder(handle_unknown="ignore", sparse_output=False), NOMINAL),
            ("ordered", OrdinalEncoder(categories=list(ORDERED.values())), list(ORDERED)),
            ("numbers", "passthrough", numbers),  # the trees take NaN as it is
        ]
    )
    trees = HistGradientBoostingRegressor(max_iter=250, learning_rate=0.08, max_leaf_nodes=15, random_state=7)
    return Pipeline([("encode", encode), ("trees", trees)])

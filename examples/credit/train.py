"""Fit the credit model: medians for what is missing, scaled numbers, a logistic regression."""

from datetime import UTC, datetime

import pandas as pd
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, precision_score, recall_score, roc_auc_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from examples.credit.costs import MISSED_DEFAULT_COST, THRESHOLD, check_threshold
from examples.credit.data import TARGET, generate
from examples.credit.features import FEATURES
from examples.frames import records
from shared.cards.card import Card
from shared.packages.package import UNHASHED, Package
from shared.packages.sample import canonical_rows
from shared.scoring.threads import one_thread

TEST_SEED = 20_240_702  # other applicants than those of the training
TEST_ROWS = 100_000  # so many that the cost curve is flat where it should be, not where chance makes it so


def train(rows: int = 20_000) -> Package:
    """Return the fitted pipeline with its card and reference rows; ValueError if its threshold is not the best."""
    names = [feature.name for feature in FEATURES]
    frame, unseen = generate(rows), holdout()
    with one_thread():
        model = pipeline().fit(frame[names], frame[TARGET])
        probability = model.predict_proba(unseen[names])[:, 1]
    defaulted = unseen[TARGET].to_numpy()
    check = check_threshold(defaulted.astype(float), probability)
    refused = probability >= THRESHOLD
    card = Card(
        name="credit",
        version=1,
        description="Probability that an applicant defaults on the loan (synthetic data).",
        task="binary",
        sha256=UNHASHED,
        labels={"0": "repaid", "1": "default"},
        threshold=THRESHOLD,
        features=FEATURES,
        missing="null",
        target=TARGET,
        trained_at=datetime.now(UTC),
        metrics={
            "holdout_rows": len(defaulted),
            "base_rate": float(defaulted.mean()),
            "roc_auc": float(roc_auc_score(defaulted, probability)),
            "brier": float(brier_score_loss(defaulted, probability)),
            "precision": float(precision_score(defaulted, refused)),
            "recall": float(recall_score(defaulted, refused)),
            "missed_default_cost": MISSED_DEFAULT_COST,
            "mean_cost": check.cost,
            "mean_cost_of_best_threshold": check.best_cost,
            "best_threshold_expected": check.expected_best,
            "best_threshold_observed": check.observed_best,
        },
        notes=(
            "Synthetic data from examples/credit/data.py: no real person. The threshold is the one of least cost when "
            f"a missed default costs {MISSED_DEFAULT_COST} refused good clients (examples/credit/costs.py)."
        ),
    )
    return Package(card, model, canonical_rows(card, records(unseen[names]), source="credit hold-out"))


def holdout() -> pd.DataFrame:
    """Return applicants whom the training has not seen, with the column of their answers."""
    return generate(TEST_ROWS, seed=TEST_SEED)


def pipeline() -> Pipeline:
    """Return the pipeline, not fitted yet."""
    return Pipeline(
        [
            ("impute", SimpleImputer(strategy="median")),
            ("scale", StandardScaler()),
            ("model", LogisticRegression(max_iter=1_000)),
        ]
    )

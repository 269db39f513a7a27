"""Fit the attrition model: scaled numbers, one-hot categories, 200 boosted trees."""

from datetime import UTC, datetime

import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from examples.attrition.data import TARGET, generate
from examples.attrition.features import FEATURES, RULES
from examples.frames import records
from shared.cards.card import Card
from shared.packages.package import UNHASHED, Package
from shared.packages.sample import canonical_rows
from shared.scoring.threads import one_thread

THRESHOLD = 0.5


def train(rows: int = 6_000) -> Package:
    """Return the fitted pipeline with its card (hold-out metrics on a quarter of the rows) and reference rows."""
    x_train, x_test, y_train, y_test = split(rows)
    with one_thread():
        model = pipeline().fit(x_train, y_train)
        probability = model.predict_proba(x_test)[:, 1]
    leaves = probability >= THRESHOLD
    card = Card(
        name="attrition",
        version=1,
        description="Probabilité qu'un salarié quitte l'entreprise dans l'année (données synthétiques).",
        task="binary",
        sha256=UNHASHED,
        labels={"0": "Reste", "1": "Part"},
        threshold=THRESHOLD,
        features=FEATURES,
        rules=RULES,
        target=TARGET,
        trained_at=datetime.now(UTC),
        metrics={
            "holdout_rows": len(y_test),
            "base_rate": float(y_test.mean()),
            "roc_auc": float(roc_auc_score(y_test, probability)),
            "accuracy": float(accuracy_score(y_test, leaves)),
            "precision": float(precision_score(y_test, leaves)),
            "recall": float(recall_score(y_test, leaves)),
            "f1": float(f1_score(y_test, leaves)),
        },
        notes="Données synthétiques, générées par examples/attrition/data.py : aucune personne réelle.",
    )
    return Package(card, model, canonical_rows(card, records(x_test), source="attrition hold-out"))


def split(rows: int = 6_000) -> tuple[pd.DataFrame, pd.DataFrame, pd.Series, pd.Series]:
    """Return the features to fit and to test on, then the answers: a quarter of the generated rows is the hold-out."""
    frame = generate(rows)
    names = [feature.name for feature in FEATURES]
    x_train, x_test, y_train, y_test = train_test_split(
        frame[names], frame[TARGET], test_size=0.25, stratify=frame[TARGET], random_state=7
    )
    return x_train, x_test, y_train, y_test


def pipeline() -> Pipeline:
    """Return the pipeline, not fitted yet."""
    texts = [feature.name for feature in FEATURES if feature.type == "string"]
    numbers = [feature.name for feature in FEATURES if feature.type != "string"]
    encode = ColumnTransformer(
        [
            ("numbers", StandardScaler(), numbers),
            # A category that was never seen becomes zeros: clients may send new ones.
            ("texts", OneHotEncoder(handle_unknown="ignore", sparse_output=False), texts),
        ]
    )
    trees = HistGradientBoostingClassifier(max_iter=200, learning_rate=0.05, max_leaf_nodes=15, random_state=7)
    return Pipeline([("encode", encode), ("trees", trees)])

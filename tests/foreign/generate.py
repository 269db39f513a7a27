"""How the models in this folder were made, each by another scikit-learn than Guichet's own. From the repository:

    python3.11 -m venv old
    old/bin/python -m pip install scikit-learn==1.5.2 lightgbm==4.7.0 numpy==2.2.6 scipy==1.17.1 pandas==2.3.3
    old/bin/python -m tests.foreign.generate model        # rows.csv, model.joblib
    old/bin/python -m tests.foreign.generate adaboost     # adaboost.joblib
    old/bin/python -m tests.foreign.generate softmax      # softmax.joblib
    old/bin/python -m pip install scikit-learn==1.3.2 numpy==1.26.4 pandas==2.2.3
    old/bin/python -m tests.foreign.generate forest       # forest.joblib, and its scores into rows.csv
    old/bin/python -m tests.foreign.generate passing      # passing.joblib
    old/bin/python -m tests.foreign.generate boosting     # boosting.joblib
    old/bin/python -m pip install scikit-learn==1.7.2 numpy==2.4.6 pandas==2.3.3
    old/bin/python -m tests.foreign.generate histogram    # histogram.joblib, and its scores into rows.csv

`categories` was not made here: it is an XGBClassifier(enable_categorical=True) that XGBoost 3.0.5 saved, with one
number and one category column of synthetic data, and the probabilities that it gave there.

`model` is what a client would bring: a LightGBM pipeline on the 43 features of the attrition contract. scikit-learn
1.9 reads `forest` without a complaint and gives other scores; it reads `passing` and cannot score with it; `boosting`
it cannot read at all. `adaboost` (SAMME.R) and `softmax` (multi_class="multinomial" with two classes) it reads without
a complaint too, and forgets the parameter that their probabilities follow from. `histogram` it can read with the help
of shared/packages/artefacts/sklearn_versions.py, as `model`.
"""

import sys
import warnings
from pathlib import Path

import joblib
import pandas as pd
from lightgbm import LGBMClassifier
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    AdaBoostClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from examples.attrition.data import TARGET, generate

FOLDER = Path(__file__).resolve().parent
ROWS = 120  # in rows.csv
TRAINED_ON = 2_000
SCORES = {
    "model": "score",
    "forest": "forest_score",
    "histogram": "histogram_score",
}  # columns of rows.csv: P(1) where the model was trained


def leaving(texts: list[str], numbers: list[str]) -> Pipeline:
    encode = ColumnTransformer(
        [
            ("numbers", Pipeline([("fill", SimpleImputer(strategy="median")), ("scale", StandardScaler())]), numbers),
            ("texts", OneHotEncoder(handle_unknown="ignore", sparse_output=False), texts),
        ]
    )
    trees = LGBMClassifier(n_estimators=40, num_leaves=7, learning_rate=0.1, random_state=7, n_jobs=1, verbose=-1)
    return Pipeline([("encode", encode), ("trees", trees)])


def forest(texts: list[str], numbers: list[str]) -> Pipeline:
    encode = ColumnTransformer(
        [("numbers", StandardScaler(), numbers), ("texts", OneHotEncoder(handle_unknown="ignore"), texts)]
    )
    return Pipeline([("encode", encode), ("trees", RandomForestClassifier(3, max_depth=4, random_state=7))])


def passing(texts: list[str], numbers: list[str]) -> Pipeline:
    encode = ColumnTransformer([("texts", OneHotEncoder(handle_unknown="ignore"), texts)], remainder="passthrough")
    return Pipeline([("encode", encode), ("model", LogisticRegression(max_iter=10))])


def boosting(texts: list[str], numbers: list[str]) -> Pipeline:
    encode = ColumnTransformer([("texts", OneHotEncoder(handle_unknown="ignore"), texts)])
    model = GradientBoostingClassifier(n_estimators=3, max_depth=2, random_state=7)
    return Pipeline([("encode", encode), ("trees", model)])


def histogram(texts: list[str], numbers: list[str]) -> Pipeline:
    encode = ColumnTransformer([("texts", OneHotEncoder(handle_unknown="ignore", sparse_output=False), texts)])
    model = HistGradientBoostingClassifier(max_iter=5, max_leaf_nodes=5, random_state=7)
    return Pipeline([("encode", encode), ("trees", model)])


def adaboost(texts: list[str], numbers: list[str]) -> Pipeline:
    encode = ColumnTransformer([("texts", OneHotEncoder(handle_unknown="ignore"), texts)], remainder="passthrough")
    return Pipeline([("encode", encode), ("trees", AdaBoostClassifier(n_estimators=3, random_state=7))])


def softmax(texts: list[str], numbers: list[str]) -> Pipeline:
    encode = ColumnTransformer([("texts", OneHotEncoder(handle_unknown="ignore"), texts)])
    return Pipeline([("encode", encode), ("model", LogisticRegression(multi_class="multinomial", max_iter=50))])


KINDS = {
    "model": leaving,
    "forest": forest,
    "passing": passing,
    "boosting": boosting,
    "histogram": histogram,
    "adaboost": adaboost,
    "softmax": softmax,
}


def main(kind: str) -> None:
    frame = generate(TRAINED_ON + ROWS, seed=43)
    names = [name for name in frame.columns if name != TARGET]
    texts = [name for name in names if frame[name].dtype == object]
    train, shown = frame.iloc[:TRAINED_ON], frame.iloc[TRAINED_ON:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        numbers = [name for name in names if name not in texts]
        model = KINDS[kind](texts, numbers).fit(train[names], train[TARGET])
        joblib.dump(model, FOLDER / f"{kind}.joblib", compress=3)
        if kind in SCORES:
            rows = FOLDER / "rows.csv"
            table = shown if kind == "model" else pd.read_csv(rows)
            table.assign(**{SCORES[kind]: model.predict_proba(shown[names])[:, 1]}).to_csv(rows, index=False)


if __name__ == "__main__":
    main(sys.argv[1])

"""The estimators that a training tries: their preprocessing by column type, and the ranges of their parameters.

Every estimator has a fixed seed and one thread, so that the same rows give the same model.
"""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import loguniform, randint, uniform
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import ParameterSampler
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from shared.training.options import ESTIMATORS, TrainingOptions, refusal
from shared.training.table import Table

MODEL = "model"  # the step of a pipeline that learns
PACKAGES = {"lightgbm": "lightgbm", "xgboost": "xgboost"}  # what is not always installed


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of estimator."""

    title: str  # for the model card
    classifier: Callable[[int], Any]  # by the seed
    regressor: Callable[[int], Any]
    parameters: Mapping[str, Any]  # of the step `model`: lists or distributions
    takes_missing: bool = True  # else the gaps of numbers are filled with medians, and numbers are scaled


def _lightgbm(kind: str) -> Callable[[int], Any]:
    def make(seed: int) -> Any:  # noqa: ANN401 - an estimator
        import lightgbm

        return getattr(lightgbm, kind)(
            n_estimators=200,
            learning_rate=0.05,
            num_leaves=15,
            random_state=seed,
            n_jobs=1,
            deterministic=True,
            force_col_wise=True,
            verbose=-1,
        )

    return make


def _xgboost(kind: str) -> Callable[[int], Any]:
    def make(seed: int) -> Any:  # noqa: ANN401 - an estimator
        import xgboost

        return getattr(xgboost, kind)(
            n_estimators=200, learning_rate=0.05, max_depth=4, tree_method="hist", random_state=seed, n_jobs=1
        )

    return make


_BOOSTING = {"learning_rate": loguniform(0.02, 0.2), "n_estimators": [100, 200, 300]}
FAMILIES: dict[str, Family] = {
    "linear": Family(
        "Logistic regression, or ridge regression for a number",
        lambda _: LogisticRegression(max_iter=2_000),
        lambda _: Ridge(),
        {"C": loguniform(1e-3, 1e2)},
        takes_missing=False,
    ),
    "hist_gradient_boosting": Family(
        "Histogram gradient boosting (scikit-learn)",
        lambda seed: HistGradientBoostingClassifier(
            max_iter=200, learning_rate=0.05, max_leaf_nodes=15, early_stopping=False, random_state=seed
        ),
        lambda seed: HistGradientBoostingRegressor(
            max_iter=200, learning_rate=0.08, max_leaf_nodes=15, early_stopping=False, random_state=seed
        ),
        {
            "learning_rate": loguniform(0.02, 0.2),
            "max_iter": [100, 200, 300],
            "max_leaf_nodes": randint(4, 32),
            "min_samples_leaf": randint(5, 60),
            "l2_regularization": loguniform(1e-3, 10),
        },
    ),
    "random_forest": Family(
        "Random forest (scikit-learn)",
        lambda seed: RandomForestClassifier(200, min_samples_leaf=3, random_state=seed, n_jobs=1),
        lambda seed: RandomForestRegressor(200, min_samples_leaf=3, max_features=0.5, random_state=seed, n_jobs=1),
        {"max_features": uniform(0.1, 0.8), "min_samples_leaf": randint(1, 20)},
    ),
    "lightgbm": Family(
        "Gradient boosting (LightGBM)",
        _lightgbm("LGBMClassifier"),
        _lightgbm("LGBMRegressor"),
        _BOOSTING | {"num_leaves": randint(4, 32), "min_child_samples": randint(5, 60)},
    ),
    "xgboost": Family(
        "Gradient boosting (XGBoost)",
        _xgboost("XGBClassifier"),
        _xgboost("XGBRegressor"),
        _BOOSTING | {"max_depth": randint(2, 7), "min_child_weight": loguniform(0.5, 20)},
    ),
}


@dataclass(frozen=True, slots=True)
class Draw:
    """One combination of an estimator with its parameters."""

    estimator: str
    parameters: dict[str, Any]  # beside the defaults of its family

    def describe(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"estimator": self.estimator, "parameters": self.parameters}


def installed() -> list[str]:
    """Return the names of the estimators with an installed library."""
    return [name for name in ESTIMATORS if name not in PACKAGES or importlib.util.find_spec(PACKAGES[name])]


def chosen_estimators(options: TrainingOptions) -> list[str]:
    """Return the estimators to try, in the order of ESTIMATORS; InvalidRequest names those that are not installed."""
    names = options.estimators or tuple(installed())
    absent = [name for name in names if name not in installed()]
    if absent:
        raise refusal(
            "not_installed",
            f"{', '.join(absent)} cannot be trained here: the package {', '.join(PACKAGES[name] for name in absent)} "
            "is not installed where trainings run. Leave it out of `estimators`, or have it installed.",
        )
    return [name for name in ESTIMATORS if name in names]


def draws(options: TrainingOptions, task: str) -> list[Draw]:
    """Return the combinations to try, dealt to the estimators in turn: first the defaults, then drawn parameters.

    With fewer draws than estimators, the last estimators are not tried. The seed decides the parameters.
    """
    names = chosen_estimators(options)
    counts = {name: len(range(place, options.draws, len(names))) for place, name in enumerate(names)}
    dealt = []
    for name, count in counts.items():
        if not count:
            continue
        space = _space(FAMILIES[name], task)
        drawn = ParameterSampler(space, count - 1, random_state=options.seed) if count > 1 else []
        dealt.append([Draw(name, each) for each in [{}, *map(_plain, drawn)]])
    rounds = max(map(len, dealt))
    return [each[place] for place in range(rounds) for each in dealt if place < len(each)]


def _space(family: Family, task: str) -> dict[str, Any]:
    space = dict(family.parameters)
    if task == "regression" and "C" in space:
        space = {"alpha": space.pop("C"), **space}
    return space


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return drawn parameters as Python's own numbers."""
    return {name: getattr(value, "item", lambda value=value: value)() for name, value in parameters.items()}


def make_pipeline(table: Table, draw: Draw, seed: int) -> Pipeline:
    """Return the pipeline of a draw for the columns of a table, not fitted yet."""
    family = FAMILIES[draw.estimator]
    model = (family.regressor if table.task == "regression" else family.classifier)(seed)
    return Pipeline([("columns", _columns(table, family)), (MODEL, model.set_params(**draw.parameters))])


def _columns(table: Table, family: Family) -> ColumnTransformer:
    texts = [column.name for column in table.columns if column.kind == "string"]
    numbers = [column for column in table.columns if column.kind != "string"]
    whole = [column.name for column in numbers if not column.has_missing]
    gaps = [column.name for column in numbers if column.has_missing]
    parts: Sequence[tuple[str, Any, list[str]]]
    if family.takes_missing:
        parts = [("numbers", "passthrough", [column.name for column in numbers])]
    else:
        filled = Pipeline([("fill", SimpleImputer(strategy="median", add_indicator=True)), ("scale", StandardScaler())])
        parts = [("numbers", StandardScaler(), whole), ("gaps", filled, gaps)]
    # A category that no row had becomes zeros, a missing text is a category of its own where rows had one.
    encode = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return ColumnTransformer([part for part in [*parts, ("texts", encode, texts)] if part[2]])

"""Explanations are the Shapley values of the card's own features, or an error: never numbers that do not add up."""

import math
from itertools import combinations, count
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor, RidgeClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier
from threadpoolctl import threadpool_limits
from xgboost import XGBClassifier, XGBRegressor

import shared.explanations.additive as additive_module
import shared.explanations.tree_values as tree_values
from shared.cards.card import Card
from shared.cards.features import Feature
from shared.explanations.explain import explain_rows
from shared.explanations.explanation import Explanation
from shared.faults import Fault
from shared.scoring.scorers import PipelineScorer
from shared.scoring.scores import response_reader

NUMBERED = count(1)  # each model has a name of its own: how one is explained is kept
NUMBERS, WORDS = ["a", "b", "c", "constant"], ["town", "level"]
FEATURES = [
    *(Feature(name=name, type="number", nullable=True, description=f"measured {name}") for name in NUMBERS),
    Feature(name="town", type="string", categories=["x", "y", "z"]),
    Feature(name="level", type="string", nullable=True),
]


@pytest.fixture(autouse=True)
def _one_thread():
    with threadpool_limits(1):  # OpenMP threads that wait for busy cores make tiny fits slow
        yield


def data(rows=300, seed=0):
    draw = np.random.default_rng(seed)
    frame = pd.DataFrame({name: draw.normal(size=rows) for name in NUMBERS})
    frame["constant"] = 1.0
    frame["town"] = draw.choice(["x", "y", "z"], rows)
    frame["level"] = draw.choice(["low", "high", "rare"], rows, p=[0.5, 0.45, 0.05])
    raw = frame.a + frame.b * frame.c + (frame.town == "y") * (1 + frame.a) + 0.5 * (frame.level == "high")
    frame.loc[draw.random(rows) < 0.1, "b"] = np.nan
    return frame, raw + draw.normal(size=rows) * 0.3


def target(raw, task):
    if task == "regression":
        return raw.to_numpy()
    return (raw > 0.5).astype(int).to_numpy() if task == "binary" else np.digitize(raw, [0, 1.0])


def preprocess(final, *, impute=True):
    numbers = make_pipeline(SimpleImputer(), StandardScaler()) if impute else StandardScaler()
    steps = ColumnTransformer(
        [
            ("numbers", numbers, NUMBERS),
            ("town", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["town"]),
            ("level", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["level"]),
        ]
    )
    return make_pipeline(steps, final)


def loaded(estimator, frame, task, *, features=FEATURES, reference=15):
    labels = {} if task == "regression" else {str(c): f"class {c}" for c in range(2 if task == "binary" else 3)}
    card = Card(name="m", version=1, sha256=f"{next(NUMBERED):064x}", task=task, labels=labels, features=features)
    rows = canonical(frame, [feature.name for feature in features])
    if task != "regression":
        decided_by = "decision_function" if not hasattr(estimator, "predict_proba") else "probability"
        decided_by = decided_by if hasattr(estimator, "decision_function") or decided_by == "probability" else "predict"
        card = card.model_copy(
            update={"decided_by": decided_by, "threshold": None if decided_by == "predict" else card.threshold}
        )
    scorer = PipelineScorer(card, estimator, response_reader(card, estimator))
    return SimpleNamespace(card=card, estimator=estimator, scorer=scorer, reference=rows[:reference])


def canonical(frame, names):
    values = frame[names].astype(object).where(frame[names].notna(), None)
    return values.to_dict("records")


def odd_rows(frame):
    rows = canonical(frame.iloc[100:104], [feature.name for feature in FEATURES])
    rows[1] |= {"a": None, "b": None, "c": None}  # missing values
    rows[2] |= {"town": "never seen", "level": "unheard of"}  # unseen categories
    rows[3] |= {"a": 1e6, "constant": -5.0}  # beyond what was seen
    return rows


def brute_force(model, row, value_of, column):
    """Return base and Shapley values by scoring every coalition with every reference row, through the pipeline."""
    names = [feature.name for feature in model.card.features]
    width = len(names)
    coalitions = [frozenset(members) for size in range(width + 1) for members in combinations(range(width), size)]
    parts = [{names[place]: row[names[place]] for place in inside} for inside in coalitions]
    mixed = [one | members for members in parts for one in model.reference]
    means = value_of(mixed)[:, column].reshape(len(coalitions), -1).mean(axis=1)
    game = dict(zip(coalitions, means.tolist(), strict=True))
    values = np.zeros(width)
    for inside, score in game.items():
        for place in set(range(width)) - inside:
            share = math.factorial(len(inside)) * math.factorial(width - len(inside) - 1) / math.factorial(width)
            values[place] += share * (game[inside | {place}] - score)
    return game[frozenset()], values


def margins(model, scale):
    """Return a function from rows to what the estimator itself gives on this scale, (n, K)."""
    frame, estimator = model.scorer.frame, model.estimator
    final = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator

    def ask(rows):
        table = frame(rows)
        if scale == "probability":
            answer = estimator.predict_proba(table)
        elif scale in ("target", "log_target"):
            answer = estimator.predict(table)
            answer = np.log(answer) if scale == "log_target" else answer
        elif type(final).__module__.startswith(("xgboost", "lightgbm")):
            encoded = estimator[:-1].transform(table)
            xgb = type(final).__module__.startswith("xgboost")
            answer = final.predict(encoded, **({"output_margin": True} if xgb else {"raw_score": True}))
        else:
            answer = estimator.decision_function(table)
        return np.asarray(answer, dtype=np.float64).reshape(len(rows), -1)

    return ask


BOOSTING = {"max_iter": 15, "max_leaf_nodes": 12, "early_stopping": False, "min_samples_leaf": 5}
SMALL = {"n_estimators": 12, "num_leaves": 10, "min_child_samples": 5, "n_jobs": 1, "verbose": -1}
GENTLE = {"n_estimators": 12, "max_depth": 4, "n_jobs": 1}
CASES = [
    ("tree_interventional", "log_odds", "binary", HistGradientBoostingClassifier(**BOOSTING), False),
    ("tree_interventional", "margin", "multiclass", HistGradientBoostingClassifier(**BOOSTING), False),
    ("tree_interventional", "target", "regression", HistGradientBoostingRegressor(**BOOSTING), False),
    ("tree_interventional", "log_odds", "binary", GradientBoostingClassifier(n_estimators=10), True),
    ("tree_interventional", "margin", "multiclass", GradientBoostingClassifier(n_estimators=6), True),
    ("tree_interventional", "target", "regression", GradientBoostingRegressor(n_estimators=10), True),
    ("tree_interventional", "probability", "binary", RandomForestClassifier(8, max_depth=6, random_state=0), True),
    ("tree_interventional", "probability", "multiclass", ExtraTreesClassifier(8, max_depth=6, random_state=0), True),
    ("tree_interventional", "target", "regression", RandomForestRegressor(8, max_depth=6, random_state=0), True),
    ("tree_interventional", "log_odds", "binary", LGBMClassifier(**SMALL), False),
    ("tree_interventional", "margin", "multiclass", LGBMClassifier(**SMALL), False),
    ("tree_interventional", "target", "regression", LGBMRegressor(**SMALL), False),
    ("tree_interventional", "log_odds", "binary", XGBClassifier(**GENTLE), False),
    ("tree_interventional", "margin", "multiclass", XGBClassifier(**GENTLE), False),
    ("tree_interventional", "target", "regression", XGBRegressor(**GENTLE), False),
    ("linear", "log_odds", "binary", LogisticRegression(), True),
    ("linear", "margin", "multiclass", LogisticRegression(), True),
    ("linear", "target", "regression", LinearRegression(), True),
    ("linear", "margin", "binary", LinearSVC(), True),
    ("enumeration", "probability", "binary", GaussianNB(), True),
    ("enumeration", "margin", "binary", SVC(), True),
    ("enumeration", "probability", "multiclass", KNeighborsClassifier(), True),
]


@pytest.mark.parametrize(("method", "scale", "task", "final", "impute"), CASES)
def test_contributions_are_those_of_all_coalitions(method, scale, task, final, impute):
    frame, raw = data()
    estimator = preprocess(final, impute=impute).fit(frame, target(raw, task))
    model = loaded(estimator, frame, task)
    value_of = margins(model, scale)
    close = 2e-5 if type(final).__module__.startswith("xgboost") else 1e-9  # XGBoost adds up in float32
    for row, explanation in zip(rows := odd_rows(frame), explain_rows(model, rows), strict=True):
        assert isinstance(explanation, Explanation), explanation
        assert (explanation.method, explanation.scale) == (method, scale)
        column = int(explanation.output.prediction) if task == "multiclass" else -1
        base, values = brute_force(model, row, value_of, column)
        by_name = {one["feature"]: one["contribution"] for one in explanation.contributions}
        assert explanation.base_value == pytest.approx(base, abs=close)
        assert [by_name[feature.name] for feature in model.card.features] == pytest.approx(values, abs=close)
        assert explanation.value == pytest.approx(value_of([row])[0, column], abs=close)
        assert explanation.base_value + sum(by_name.values()) == pytest.approx(explanation.value, abs=1e-9)


def test_trees_too_large_for_tables_have_the_same_contributions(monkeypatch):
    frame, raw = data()
    estimator = preprocess(HistGradientBoostingClassifier(**BOOSTING), impute=False)
    estimator.fit(frame, target(raw, "multiclass"))
    rows = canonical(frame[:100], [feature.name for feature in FEATURES])
    looked_up = explain_rows(loaded(estimator, frame, "multiclass"), rows)
    monkeypatch.setattr(tree_values, "MAX_CELLS", 0)
    model = loaded(estimator, frame, "multiclass")
    for paired in (explain_rows(model, rows), [one for row in rows[:5] for one in explain_rows(model, [row])]):
        for one, other in zip(looked_up, paired, strict=False):
            amounts = {each["feature"]: each["contribution"] for each in other.contributions}
            assert {
                each["feature"]: pytest.approx(each["contribution"], abs=1e-12) for each in one.contributions
            } == amounts


def test_feature_that_never_changes_and_that_nothing_asks_gets_nothing():
    frame, raw = data()
    model = loaded(
        preprocess(HistGradientBoostingRegressor(**BOOSTING), impute=False).fit(frame, raw), frame, "regression"
    )
    (explanation,) = explain_rows(model, odd_rows(frame)[:1])
    last = next(one for one in explanation.contributions if one["feature"] == "constant")
    assert last["contribution"] == 0.0
    assert last["text"] == "constant (measured constant) is 1 (reference median 1): it changes nothing here."
    assert all("constant" not in text for text in explanation.top)


def numbers_only(estimator, task, *, rows=300, reference=0):
    """Return a model of four bare numbers, whose reference is one row: none to compare with."""
    frame, raw = data(rows)
    estimator.fit(frame[NUMBERS], target(raw, task))
    return loaded(estimator, frame, task, features=FEATURES[:4], reference=reference or 1), frame[NUMBERS]


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_without_reference_rows_contributions_are_lightgbms_own(task):
    kind = LGBMRegressor if task == "regression" else LGBMClassifier
    model, frame = numbers_only(kind(**SMALL), task)
    own = model.estimator.predict(frame[:6], pred_contrib=True).reshape(6, -1, 5)
    for place, explanation in enumerate(explain_rows(model, canonical(frame[:6], NUMBERS))):
        assert explanation.method == "tree_path_dependent"
        assert explanation.reference == {"rows": 0, "source": "the training rows that the trees counted", "seed": None}
        output = int(explanation.output.prediction) if task == "multiclass" else 0
        by_name = {one["feature"]: one["contribution"] for one in explanation.contributions}
        assert [*(by_name[name] for name in NUMBERS), explanation.base_value] == pytest.approx(
            own[place, output], abs=1e-9
        )


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_without_reference_rows_contributions_are_xgboosts_own(task):
    from xgboost import DMatrix

    kind = XGBRegressor if task == "regression" else XGBClassifier
    model, frame = numbers_only(kind(**GENTLE), task)
    own = model.estimator.get_booster().predict(DMatrix(frame[:6]), pred_contribs=True).reshape(6, -1, 5)
    for place, explanation in enumerate(explain_rows(model, canonical(frame[:6], NUMBERS))):
        assert explanation.method == "tree_path_dependent"
        output = int(explanation.output.prediction) if task == "multiclass" else 0
        by_name = {one["feature"]: one["contribution"] for one in explanation.contributions}
        assert [*(by_name[name] for name in NUMBERS), explanation.base_value] == pytest.approx(
            own[place, output], abs=1e-4
        )


@pytest.mark.parametrize(
    "final",
    [
        CalibratedClassifierCV(RandomForestClassifier(5, random_state=0), cv=2),
        VotingClassifier([("a", LogisticRegression()), ("b", DecisionTreeClassifier(max_depth=3))], voting="soft"),
    ],
)
def test_sampled_contributions_add_up_and_lie_within_their_errors(final, monkeypatch):
    monkeypatch.setattr("shared.explanations.sampling.BUDGET", 1000)  # not enough for every coalition
    frame, raw = data()
    model = loaded(preprocess(final).fit(frame, target(raw, "binary")), frame, "binary", reference=30)
    row = odd_rows(frame)[0]
    (explanation,) = explain_rows(model, [row])
    assert (explanation.method, explanation.scale) == ("permutation_sampling", "probability")
    assert explanation.base_value + sum(one["contribution"] for one in explanation.contributions) == pytest.approx(
        explanation.value, abs=1e-9
    )
    _, exact = brute_force(model, row, margins(model, "probability"), -1)
    by_name = {one["feature"]: one for one in explanation.contributions}
    for feature, truth in zip(model.card.features, exact, strict=True):
        one = by_name[feature.name]
        assert abs(one["contribution"] - truth) <= 5 * one["standard_error"] + 1e-12
    assert explain_rows(model, [row])[0].contributions == explanation.contributions  # drawn with a seed that is kept


def test_columns_that_mix_features_are_explained_from_scores():
    frame, raw = data()
    estimator = make_pipeline(SimpleImputer(), PCA(2), LogisticRegression()).fit(frame[NUMBERS], target(raw, "binary"))
    model = loaded(estimator, frame, "binary", features=FEATURES[:4])
    row = canonical(frame[:1], NUMBERS)[0]
    (explanation,) = explain_rows(model, [row])
    assert explanation.method == "enumeration"
    _, exact = brute_force(model, row, margins(model, "probability"), -1)
    by_name = {one["feature"]: one["contribution"] for one in explanation.contributions}
    assert [by_name[name] for name in NUMBERS] == pytest.approx(exact, abs=1e-9)


def test_numbers_that_do_not_add_up_are_never_shown(monkeypatch):
    frame, raw = data()
    model = loaded(preprocess(LogisticRegression()).fit(frame, target(raw, "binary")), frame, "binary")
    true = additive_module.LinearSum.contributions
    monkeypatch.setattr(additive_module.LinearSum, "contributions", lambda *arguments: true(*arguments) * (1 + 1e-5))
    (explanation,) = explain_rows(model, odd_rows(frame)[:1])
    assert isinstance(explanation, Fault)
    assert explanation.code == "explanation_inexact"
    assert "Nothing is shown that does not add up" in explanation.message


@pytest.mark.parametrize(
    ("estimator", "scale", "make"),
    [
        (XGBRegressor(objective="reg:tweedie", **GENTLE), "log_target", np.exp),  # shap issue 3579
        (HistGradientBoostingRegressor(loss="poisson", **BOOSTING), "log_target", np.exp),
        (PoissonRegressor(), "log_target", np.exp),
        (LGBMRegressor(boosting_type="rf", bagging_freq=1, bagging_fraction=0.7, **SMALL), "target", np.array),
        (XGBRegressor(booster="dart", rate_drop=0.3, **GENTLE), "target", np.array),
        (RandomForestRegressor(3, random_state=0), "target", np.array),  # as deep as it grows: shap issue 3267
        (LinearRegression(fit_intercept=False), "target", np.array),  # shap issue 807
    ],
)
def test_contributions_of_models_that_others_get_wrong_are_those_of_all_coalitions(estimator, scale, make):
    frame, raw = data()
    frame = frame[NUMBERS].fillna(0.0)
    model = loaded(estimator.fit(frame, make(raw)), frame, "regression", features=FEATURES[:4])
    row = canonical(frame[:1], NUMBERS)[0]
    (explanation,) = explain_rows(model, [row])
    assert isinstance(explanation, Explanation), explanation
    assert explanation.scale == scale
    assert explanation.method in ("tree_interventional", "linear")
    link = np.log if scale == "log_target" else np.array
    base, exact = brute_force(model, row, lambda rows: link(estimator.predict(model.scorer.frame(rows)))[:, None], -1)
    by_name = {one["feature"]: one["contribution"] for one in explanation.contributions}
    assert [*(by_name[name] for name in NUMBERS), explanation.base_value] == pytest.approx([*exact, base], abs=2e-6)


def test_row_that_the_model_refuses_keeps_its_fault_and_spoils_no_other():
    frame, raw = data()
    steps = ColumnTransformer([("town", OneHotEncoder(handle_unknown="error"), ["town"]), ("a", "passthrough", ["a"])])
    estimator = make_pipeline(steps, LogisticRegression()).fit(frame[["a", "town"]], target(raw, "binary"))
    model = loaded(estimator, frame, "binary", features=[FEATURES[0], FEATURES[4]])
    rows = canonical(frame[:2], ["a", "town"])
    rows[0]["town"] = "never seen"
    refused, explained = explain_rows(model, rows)
    assert isinstance(refused, Fault)
    assert refused.code == "refused_by_model"
    assert isinstance(explained, Explanation)


def test_classes_without_a_number_cannot_be_explained():
    frame, raw = data()
    final = VotingClassifier([("a", RidgeClassifier()), ("b", LinearSVC())], voting="hard")
    model = loaded(preprocess(final).fit(frame, target(raw, "binary")), frame, "binary")
    (explanation,) = explain_rows(model, odd_rows(frame)[:1])
    assert isinstance(explanation, Fault)
    assert explanation.code == "not_explainable"
    assert "train it with probabilities" in explanation.message


def test_linear_model_without_reference_rows_cannot_be_explained():
    frame, raw = data()
    model = loaded(preprocess(LogisticRegression()).fit(frame, target(raw, "binary")), frame, "binary", reference=1)
    (explanation,) = explain_rows(model, odd_rows(frame)[:1])
    assert explanation.code == "not_explainable"
    assert "register it again with --reference rows.csv" in explanation.message


def test_sentences_say_value_usual_value_direction_and_size():
    frame, raw = data()
    model = loaded(preprocess(LogisticRegression()).fit(frame, target(raw, "binary")), frame, "binary")
    row = odd_rows(frame)[0] | {"a": 3.0, "b": None, "town": "y"}
    (explanation,) = explain_rows(model, [row])
    texts = {one["feature"]: one["text"] for one in explanation.contributions}
    usual = next(one["reference"] for one in explanation.contributions if one["feature"] == "a")
    assert texts["a"].startswith(
        f"a (measured a) is 3 (reference median {usual:.3g}): it raises the log-odds of class 1 by "
    )
    assert texts["b"].startswith("b (measured b) is missing (reference median ")
    assert texts["town"].startswith("town is y (reference most frequent value ")
    sizes = [abs(one["contribution"]) for one in explanation.contributions]
    assert sizes == sorted(sizes, reverse=True)
    assert explanation.top[0] == explanation.contributions[0]["text"]

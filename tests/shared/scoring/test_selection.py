"""The chosen scorer gives the pipeline's own answers, and paths that do not are refused with a reason."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor, RidgeClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits
from xgboost import XGBClassifier, XGBRegressor

import shared.scoring.selection
from shared.cards.card import Card
from shared.cards.features import Feature
from shared.encoding.estimator_inputs import make_frame_input
from shared.errors import ArtefactError, CardError
from shared.scoring import onnx_graph
from shared.scoring.selection import build, choose
from tests.support.brief import prove_briefly

KINDS = ["number"] * 18 + ["integer"] * 12 + ["boolean"] * 3 + ["string"] * 10
LETTERS = list("abcde")


@pytest.fixture(autouse=True)
def _small_measurements_on_one_thread(monkeypatch):
    prove_briefly(monkeypatch)
    with threadpool_limits(1):  # OpenMP threads that wait for busy cores make tiny fits slow
        yield


def features(*, nullable=False, count=43):
    kinds = KINDS if count == len(KINDS) else ["number", "integer", "number", "boolean", "string", "string"]
    return [
        Feature(
            name=f"f{i}",
            type=kind,
            nullable=nullable and kind == "number",
            min=0 if kind == "integer" else None,
            max=90 if kind == "integer" else None,
            categories=LETTERS if kind == "string" else None,
        )
        for i, kind in enumerate(kinds)
    ]


def card(schema, task="binary", **more):
    return Card(name="model", version=1, task=task, sha256="0" * 64, features=schema, **more)


def rows(schema, count=240, seed=1):
    draw = np.random.default_rng(seed)
    make = {
        "number": lambda: float(draw.normal(5, 3)),
        "integer": lambda: int(draw.integers(0, 91)),
        "boolean": lambda: bool(draw.integers(2)),
        "string": lambda: LETTERS[int(draw.integers(5))],
    }
    made = [{feature.name: make[feature.type]() for feature in schema} for _ in range(count)]
    for feature in schema:
        if feature.nullable:
            for row in made[:: 5 + len(feature.name)]:
                row[feature.name] = None
    return made


def target(made, schema, task):
    frame = pd.DataFrame(made)
    numbers = [feature.name for feature in schema if feature.type in ("number", "integer")]
    texts = [feature.name for feature in schema if feature.type == "string"]
    signal = frame[numbers[:4]].fillna(5).sum(axis=1) / 10 + (3 * (frame[texts[0]] == "a") if texts else 0)
    signal = signal + np.random.default_rng(0).normal(0, 0.3, len(frame))
    if task == "regression":
        return signal.to_numpy() * 100
    cuts = [0.5] if task == "binary" else [0.3, 0.7]
    return np.digitize(signal, np.quantile(signal, cuts))


def columns(schema, *, imputer=False, scaler=True, encoder=None):
    numbers = [feature.name for feature in schema if feature.type in ("number", "integer")]
    texts = [feature.name for feature in schema if feature.type == "string"]
    flags = [feature.name for feature in schema if feature.type == "boolean"]
    steps = ([SimpleImputer()] if imputer else []) + ([StandardScaler()] if scaler else [])
    return ColumnTransformer(
        [
            ("numbers", make_pipeline(*steps) if steps else "passthrough", numbers),
            ("texts", encoder or OneHotEncoder(handle_unknown="ignore", sparse_output=False), texts),
            ("flags", "passthrough", flags),
        ]
    )


def trained(estimator, schema, *, task="binary", classes=None, **options):
    made = rows(schema)
    pipeline = make_pipeline(columns(schema, **options), estimator)
    frame = make_frame_input(card(schema, task), FunctionTransformer())(made)
    y = target(made, schema, task)
    pipeline.fit(frame, y if classes is None else np.array(classes)[y])
    return pipeline, made


def entry(choice, kind):
    return next(candidate for candidate in choice.report["candidates"] if candidate["kind"] == kind)


def assert_agrees(scorer, pipeline, its_card, made):
    """The scores of fresh rows, together and one by one, are those of the pipeline."""
    fresh = made[:3] + rows(its_card.features, 150, seed=77)
    frame = make_frame_input(its_card, pipeline)(fresh)
    together = scorer.score(fresh)
    alone = [scorer.score([row]) for row in fresh[:10]]
    np.testing.assert_allclose([one.prediction[0] for one in alone], together.prediction[:10], rtol=1e-6)
    if its_card.task == "regression":
        assert together.probability is None
        np.testing.assert_allclose(together.prediction, pipeline.predict(frame), rtol=1e-6)
        return
    if not hasattr(pipeline, "predict_proba"):
        index = np.searchsorted(pipeline.classes_, pipeline.predict(frame))
        np.testing.assert_array_equal(together.prediction, index)
        assert together.probability is None
        return
    chances = pipeline.predict_proba(frame)
    if its_card.task == "binary":  # a threshold that was chosen counts itself in; without one, predict breaks the ties
        own = pipeline.predict(frame) == pipeline.classes_[1]
        expected = own if its_card.threshold == 0.5 else chances[:, 1] >= its_card.threshold
        np.testing.assert_array_equal(together.prediction, expected)
        np.testing.assert_allclose(together.probability, chances[:, 1], atol=1e-6)
        assert together.probabilities is None
    else:
        np.testing.assert_array_equal(together.prediction, chances.argmax(axis=1))
        np.testing.assert_allclose(together.probabilities, chances, atol=1e-6)
        np.testing.assert_allclose(together.probability, chances.max(axis=1), atol=1e-6)


def test_histogram_boosting_with_43_mixed_features_is_scored_by_treelite():
    schema = features(nullable=True)
    pipeline, made = trained(HistGradientBoostingClassifier(max_iter=20, early_stopping=False), schema)
    choice = choose(card(schema), pipeline, made[:60])
    assert choice.report["kind"] == choice.scorer.kind == "treelite"
    assert choice.report["max_abs_diff"] < 1e-12
    assert choice.report["decisions_differ"] == 0
    assert choice.report["rows_checked"] > 500
    assert choice.report["one_row_us"] < entry(choice, "pipeline")["one_row_us"] / 5
    assert [candidate["kind"] for candidate in choice.report["candidates"]] == ["numpy", "treelite", "onnx", "pipeline"]
    json.dumps(choice.report, allow_nan=False)
    assert_agrees(choice.scorer, pipeline, card(schema), made)


def test_float32_onnx_trees_disagree_at_the_splits_and_are_refused_with_a_reason():
    schema = [Feature(name="a", type="number"), Feature(name="b", type="number")]
    made = [{"a": i / 7, "b": -i / 3} for i in range(300)]
    y = np.arange(300) // 15 % 2
    frame = pd.DataFrame(made)
    forest = ExtraTreesClassifier(n_estimators=3, max_features=None, random_state=0)
    boosting = HistGradientBoostingClassifier(max_iter=15, min_samples_leaf=2, early_stopping=False)
    for estimator in (forest, boosting):
        pipeline = make_pipeline(StandardScaler(), estimator).fit(frame, y)
        choice = choose(card(schema), pipeline, made[:40])
        onnx = entry(choice, "onnx")
        assert not onnx["exact"]
        assert onnx["max_abs_diff"] > 0.05, "not a rounding error: another branch was taken"
        assert "rows are off, by up to" in onnx["reason"]
        assert onnx["one_row_us"] > 0, "it is measured all the same"
        assert choice.report["kind"] != "onnx"
        with pytest.raises(ArtefactError, match="cannot be scored by onnx any more"):
            build(card(schema), pipeline, "onnx", made[:40])
        assert_agrees(choice.scorer, pipeline, card(schema), made)


def test_logistic_regression_with_imputed_nulls_is_one_dot_product():
    schema = features(nullable=True)
    pipeline, made = trained(LogisticRegression(), schema, imputer=True)
    choice = choose(card(schema), pipeline, made[:60])
    numpy = entry(choice, "numpy")
    assert numpy["exact"]
    assert numpy["max_abs_diff"] < 1e-12
    assert "not an ensemble of trees" in entry(choice, "treelite")["reason"]
    assert entry(choice, "onnx")["max_abs_diff"] < 1e-5
    scorer = build(card(schema), pipeline, "numpy", made[:60])
    assert_agrees(scorer, pipeline, card(schema), made)
    assert_agrees(choice.scorer, pipeline, card(schema), made)


def test_onnx_scores_a_logistic_pipeline_within_the_tolerance_and_can_be_rebuilt():
    schema = features(count=6)
    pipeline, made = trained(LogisticRegression(C=0.1), schema)
    choice = choose(card(schema), pipeline, made[:60])
    assert entry(choice, "onnx")["exact"], entry(choice, "onnx")
    scorer = build(card(schema), pipeline, "onnx", made[:60])
    assert scorer.kind == "onnx"
    assert_agrees(scorer, pipeline, card(schema), made)
    assert len(scorer.score([]).prediction) == 0
    one, other = [feature.name for feature in schema if feature.type == "number"]
    # In float32 both are infinite, and one of the two differences is no number.
    assert_agrees(scorer, pipeline, card(schema), [made[0] | {one: 1e300, other: far} for far in (1e300, -1e300)])


REGRESSORS = {
    "random forest": RandomForestRegressor(n_estimators=8, max_depth=6, n_jobs=2, random_state=0),
    "gradient boosting": GradientBoostingRegressor(n_estimators=12, random_state=0),
    "histogram boosting": HistGradientBoostingRegressor(max_iter=12, early_stopping=False),
    "histogram boosting, gamma": HistGradientBoostingRegressor(loss="gamma", max_iter=12, early_stopping=False),
    "XGBoost": XGBRegressor(n_estimators=10, max_depth=3, n_jobs=1),
    "LightGBM": LGBMRegressor(n_estimators=10, min_child_samples=5, n_jobs=1, verbose=-1),
}


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("estimator", REGRESSORS.values(), ids=REGRESSORS)
def test_tree_regression_is_scored_by_treelite(estimator):
    schema = features(count=6)
    pipeline, made = trained(estimator, schema, task="regression")
    scorer = build(card(schema, "regression"), pipeline, "treelite", made[:40])
    assert_agrees(scorer, pipeline, card(schema, "regression"), made)
    choice = choose(card(schema, "regression"), pipeline, made[:40])
    assert entry(choice, "treelite")["exact"]
    assert choice.report["decisions_differ"] == 0


CLASSIFIERS = {
    "random forest": RandomForestClassifier(n_estimators=8, max_depth=6, random_state=0),
    "gradient boosting": GradientBoostingClassifier(n_estimators=8, random_state=0),
    "histogram boosting": HistGradientBoostingClassifier(max_iter=8, early_stopping=False),
    "XGBoost": XGBClassifier(n_estimators=8, max_depth=3, n_jobs=1),
    "LightGBM": LGBMClassifier(n_estimators=8, min_child_samples=5, n_jobs=1, verbose=-1),
}


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("estimator", CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_tree_classification_is_scored_by_treelite(estimator, task):
    schema = features(count=6)
    pipeline, made = trained(estimator, schema, task=task)
    choice = choose(card(schema, task), pipeline, made[:40])
    assert entry(choice, "treelite")["exact"], entry(choice, "treelite")
    assert entry(choice, "numpy")["exact"], entry(choice, "numpy")
    for kind in ("treelite", "numpy"):
        assert_agrees(build(card(schema, task), pipeline, kind, made[:40]), pipeline, card(schema, task), made)


def test_xgboost_behind_a_sparse_matrix_takes_zeros_for_missing_as_the_pipeline_does():
    schema = features(count=6)
    made = rows(schema)
    before = columns(schema, encoder=OneHotEncoder(handle_unknown="ignore")).set_params(sparse_threshold=1.0)
    pipeline = make_pipeline(before, XGBClassifier(n_estimators=8, max_depth=3, n_jobs=1))
    pipeline.fit(make_frame_input(card(schema), FunctionTransformer())(made), target(made, schema, "binary"))
    assert pipeline[0].sparse_output_
    choice = choose(card(schema), pipeline, made[:40])
    assert entry(choice, "treelite")["exact"], entry(choice, "treelite")
    assert_agrees(build(card(schema), pipeline, "treelite", made[:40]), pipeline, card(schema), made)


def test_xgboost_with_early_stopping_is_cut_at_its_best_round():
    schema = [feature for feature in features(count=6) if feature.type != "string"]
    made = rows(schema)
    frame, y = pd.DataFrame(made), target(made, schema, "binary")
    model = XGBClassifier(n_estimators=60, max_depth=3, learning_rate=0.9, early_stopping_rounds=3, n_jobs=1)
    model.fit(frame, y, eval_set=[(frame[:50], 1 - y[:50])], verbose=False)
    scorer = build(card(schema), model, "treelite", made[:40])
    assert_agrees(scorer, model, card(schema), made)


def test_multiclass_with_text_classes_follows_their_order():
    schema = features(count=6)
    pipeline, made = trained(LogisticRegression(), schema, task="multiclass", classes=["low", "mid", "high"])
    choice = choose(card(schema, "multiclass"), pipeline, made[:40])
    assert list(pipeline.classes_) == ["high", "low", "mid"]
    assert entry(choice, "numpy")["exact"]
    assert_agrees(choice.scorer, pipeline, card(schema, "multiclass"), made)


@pytest.mark.parametrize("as_array", [False, True])
def test_bare_estimator_needs_no_pipeline(as_array):
    schema = [feature for feature in features(count=6) if feature.type != "string"]
    made = rows(schema)
    frame, y = pd.DataFrame(made), target(made, schema, "binary")
    model = RandomForestClassifier(n_estimators=6, random_state=0)
    model.fit(frame.to_numpy(dtype=float) if as_array else frame, y)
    choice = choose(card(schema), model, made[:40])
    assert entry(choice, "treelite")["exact"], entry(choice, "treelite")
    assert_agrees(choice.scorer, model, card(schema), made)


def test_native_categories_of_histogram_boosting_reach_treelite():
    schema = features(count=6)
    made = rows(schema)
    frame = pd.DataFrame(made).astype({"f4": "category", "f5": "category"})
    model = HistGradientBoostingClassifier(max_iter=10, min_samples_leaf=5).fit(frame, target(made, schema, "binary"))
    choice = choose(card(schema), model, made[:40])
    assert entry(choice, "treelite")["exact"], entry(choice, "treelite")
    assert_agrees(build(card(schema), model, "treelite", made[:40]), model, card(schema), made)


def test_step_that_no_fast_path_understands_leaves_the_pipeline():
    schema = features(count=6)
    made = rows(schema)
    pipeline = make_pipeline(
        FunctionTransformer(lambda frame: frame.assign(f0=frame["f0"] ** 2)), columns(schema), LogisticRegression()
    )
    pipeline.fit(pd.DataFrame(made), target(made, schema, "binary"))
    choice = choose(card(schema), pipeline, made[:20])
    assert choice.report["kind"] == choice.scorer.kind == "pipeline"
    assert "FunctionTransformer" in entry(choice, "numpy")["reason"]
    assert "FunctionTransformer" in entry(choice, "treelite")["reason"]
    assert not entry(choice, "onnx")["exact"]
    assert build(card(schema), pipeline, "pipeline", made[:20]).kind == "pipeline"
    with pytest.raises(ArtefactError, match="no array equivalent is known for the step FunctionTransformer"):
        build(card(schema), pipeline, "numpy", made[:20])
    assert_agrees(choice.scorer, pipeline, card(schema), made)


def test_unknown_category_is_scored_as_the_pipeline_scores_it():
    schema = features(count=6)
    pipeline, made = trained(HistGradientBoostingClassifier(max_iter=10, early_stopping=False), schema)
    scorer = build(card(schema), pipeline, "treelite", made[:40])
    odd = [row | {"f4": "never seen"} for row in made[:10]]
    expected = pipeline.predict_proba(make_frame_input(card(schema), pipeline)(odd))[:, 1]
    np.testing.assert_allclose(scorer.score(odd).probability, expected, atol=1e-12)


def test_rows_that_the_pipeline_refuses_are_refused_by_the_chosen_path():
    schema = [
        Feature(name="a", type="number", nullable=True),
        Feature(name="b", type="number"),
        Feature(name="c", type="string"),
    ]
    made = [row | {"a": row["a"] or 0.5} for row in rows(schema)]
    encoder = ColumnTransformer([("n", "passthrough", ["a", "b"]), ("t", OrdinalEncoder(), ["c"])])
    pipeline = make_pipeline(encoder, GradientBoostingClassifier(n_estimators=5))
    pipeline.fit(pd.DataFrame(made), target(made, schema, "binary"))
    choice = choose(card(schema), pipeline, made[:30])
    assert entry(choice, "treelite")["exact"], entry(choice, "treelite")
    scorer = build(card(schema), pipeline, "treelite", made[:30])
    with pytest.raises(ValueError, match="no missing values"):
        scorer.score([made[0] | {"a": None}])
    with pytest.raises(ValueError, match="c has a category"):
        scorer.score([made[0] | {"c": "never seen"}])


@pytest.mark.parametrize("estimator", [RidgeClassifier(), LinearSVC()], ids=["ridge", "svm"])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_classifier_without_probabilities_gives_decisions_only(estimator, task):
    schema = features(count=6)
    pipeline, made = trained(estimator, schema, task=task)
    choice = choose(card(schema, task), pipeline, made[:30])
    assert choice.report["kind"] == "numpy"
    assert_agrees(choice.scorer, pipeline, card(schema, task), made)


def test_model_whose_link_is_not_the_identity_is_asked_itself():
    schema = features(count=6)
    pipeline, made = trained(PoissonRegressor(max_iter=300), schema, task="regression")
    its_card = card(schema, "regression")
    choice = choose(its_card, pipeline, made[:30])
    assert entry(choice, "numpy")["exact"]
    assert_agrees(build(its_card, pipeline, "numpy", made[:30]), pipeline, its_card, made)


def test_any_other_estimator_is_called_on_the_encoded_array():
    schema = features(count=6)
    pipeline, made = trained(GaussianNB(), schema)
    choice = choose(card(schema), pipeline, made[:30])
    assert entry(choice, "numpy")["exact"]
    assert_agrees(choice.scorer, pipeline, card(schema), made)
    line, made = trained(LinearRegression(), schema, task="regression")
    assert_agrees(choose(card(schema, "regression"), line, made[:30]).scorer, line, card(schema, "regression"), made)


def test_threshold_of_the_card_decides():
    schema = features(count=6)
    pipeline, made = trained(LogisticRegression(), schema)
    scorer = build(card(schema, threshold=0.9), pipeline, "numpy", made[:30])
    scores = scorer.score(made)
    assert ((scores.probability >= 0.9) == scores.prediction).all()
    assert 0 < scores.prediction.sum() < (scores.probability >= 0.5).sum()


def test_path_that_stops_being_exact_is_refused_when_the_worker_starts(monkeypatch):
    schema = features(count=6)
    pipeline, made = trained(LogisticRegression(), schema)
    monkeypatch.setattr(
        shared.scoring.selection, "linear", lambda final, reader: lambda x: reader.decide_binary(x[:, 0])
    )
    monkeypatch.setattr(
        shared.scoring.selection, "native", lambda final, reader, sparse: lambda x: reader.decide_binary(x[:, 1])
    )
    with pytest.raises(ArtefactError, match=r"cannot be scored by numpy any more .* rows are off"):
        build(card(schema), pipeline, "numpy", made[:30])
    with pytest.raises(ArtefactError, match="'guess' is no way to score"):
        build(card(schema), pipeline, "guess", made[:30])


def test_card_and_estimator_that_disagree_on_the_task_are_refused():
    schema = features(count=6)
    pipeline, made = trained(LogisticRegression(), schema, task="multiclass")
    with pytest.raises(CardError, match="says binary, but the estimator knows 3 classes"):
        choose(card(schema), pipeline, made)
    with pytest.raises(CardError, match="not a regressor"):
        choose(card(schema, "regression"), pipeline, made)
    line, made = trained(LinearRegression(), schema, task="regression")
    with pytest.raises(CardError, match="has no classes"):
        build(card(schema), line, "numpy", made)


def test_reference_that_the_pipeline_cannot_score_is_an_artefact_error():
    schema = features(count=6)
    pipeline, made = trained(LogisticRegression(), schema)
    with pytest.raises(ArtefactError, match="refuses its own reference rows"):
        choose(card(schema), pipeline, [row | {"f0": None} for row in made[:3]])


def test_no_reference_rows_are_replaced_by_the_example_of_the_card():
    schema = features(count=6)
    pipeline, made = trained(LogisticRegression(), schema)
    assert_agrees(choose(card(schema), pipeline, []).scorer, pipeline, card(schema), made)


def test_no_rows_give_empty_scores():
    schema = features(count=6)
    pipeline, made = trained(LogisticRegression(), schema, task="multiclass")
    for kind in ("numpy", "pipeline"):
        scores = build(card(schema, "multiclass"), pipeline, kind, made[:20]).score([])
        assert scores.prediction.shape == scores.probability.shape == (0,)
        assert scores.probabilities.shape == (0, 3)


def test_importing_the_scorer_imports_no_heavy_library():
    heavy = "{'sklearn', 'scipy', 'pandas', 'onnx', 'onnxruntime', 'skl2onnx', 'treelite', 'xgboost', 'lightgbm'}"
    code = f"import sys, shared.scoring.selection; sys.exit(' '.join({heavy} & sys.modules.keys()) or 0)"
    root = Path(shared.scoring.selection.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert (done.stderr.strip(), done.returncode) == ("", 0)


WITHOUT_PANDAS = """
import sys

class NoPandas:
    def find_spec(self, name, path=None, target=None):
        if name == "pandas":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NoPandas())
import joblib
from shared.scoring.selection import build
card, pipeline, made = joblib.load(sys.argv[1])
scorer = build(card, pipeline, "treelite", made)
scorer.score(made)
sys.exit(" ".join({"pandas", "onnx", "onnxruntime", "skl2onnx"} & sys.modules.keys()) or 0)
"""


def test_worker_that_scores_by_treelite_needs_neither_pandas_nor_onnx(tmp_path):
    schema = features(count=6)
    pipeline, made = trained(HistGradientBoostingClassifier(max_iter=5), schema)
    pd.to_pickle((card(schema), pipeline, made[:20]), tmp_path / "model.joblib")
    root = Path(shared.scoring.selection.__file__).parents[2]
    command = [sys.executable, "-c", WITHOUT_PANDAS, str(tmp_path / "model.joblib")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert (done.stderr.strip(), done.returncode) == ("", 0)


def test_onnx_runtime_is_told_to_send_no_usage_data(monkeypatch):
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    with pytest.raises(Exception, match="model"):
        onnx_graph._session(b"no graph")
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def measured(kind, one_row_us, rows_per_s, max_abs_diff=0.0):
    figures = {"one_row_us": one_row_us, "rows_per_s": rows_per_s, "max_abs_diff": max_abs_diff}
    return kind, {"kind": kind, **figures}


@pytest.mark.parametrize(
    ("onnx", "winner"),
    [
        (measured("onnx", 9.0, 1_100_000, 2e-8), "numpy"),  # somewhat faster, as on a busy machine
        (measured("onnx", 7.0, 1_400_000, 2e-8), "numpy"),  # 1.4 times as fast
        (measured("onnx", 6.0, 1_700_000, 2e-8), "onnx"),  # 1.7 times as fast
        (measured("onnx", 8.0, 1_300_000, 1e-15), "onnx"),  # it keeps every digit: being faster is enough
        (measured("onnx", 9.5, 1_000_000, 1e-15), "numpy"),  # heavier, and hardly faster
        (measured("onnx", None, None, 2e-8), "numpy"),  # it could not be timed
    ],
)
def test_path_with_rounded_answers_must_be_much_faster(onnx, winner):
    paths = [measured("numpy", 10.0, 1_000_000, 1e-16), onnx, measured("pipeline", 2_000.0, 300_000)]
    assert shared.scoring.selection._best(paths)[0] == winner


def test_fastest_of_the_precise_paths_is_what_a_rounded_one_is_measured_against():
    paths = [
        measured("numpy", 10.0, 1_000_000, 1e-16),
        measured("treelite", 9.0, 1_000_000, 1e-16),  # not faster enough to be chosen, but faster
        measured("onnx", 6.5, 1_000_000, 2e-8),
        measured("pipeline", 2_000.0, 300_000),
    ]
    assert shared.scoring.selection._best(paths)[0] == "numpy"


def test_rounded_path_serves_where_only_the_pipeline_is_precise():
    paths = [measured("treelite", 20.0, 500_000, 3e-8), measured("pipeline", 2_000.0, 300_000)]
    assert shared.scoring.selection._best(paths)[0] == "treelite"

"""Models with categories of their own: a row's score is the same alone, in any batch and in any order."""

import numpy as np
import pandas as pd
import pytest
import xgboost
from lightgbm import LGBMClassifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder, StandardScaler
from xgboost import XGBClassifier, XGBRegressor

from shared.database.engine import make_engine
from shared.errors import ArtefactError
from shared.tables import Table
from tests.support.brief import prove_briefly
from tests.support.registered import added

PLAIN = ["Brest", "Lille", "Lyon", "Nice"]
ACCENTS = ["Célibataire", "Divorcé(e)", "Marié(e)", "Veuf", "Éloigné"]
JAPANESE = ["京都", "大阪市", "東京", "札幌市中央区"]


@pytest.fixture(autouse=True)
def _short_measurements(monkeypatch):
    prove_briefly(monkeypatch)


@pytest.fixture
def engine(tmp_path):
    engine = make_engine(f"sqlite:///{tmp_path / 'guichet.db'}")
    Table.metadata.create_all(engine)
    yield engine
    engine.dispose()


def training(categories, *, count=400, seed=5):
    """Return rows whose `y` is ten times the place of their category in the list, and some noise in `a`."""
    draw = np.random.default_rng(seed)
    places = np.concatenate([np.arange(len(categories)), draw.integers(len(categories), size=count)])
    values = np.array(categories, dtype=object)[places]
    frame = pd.DataFrame({"a": np.round(draw.normal(size=len(places)), 3), "c": values})
    return frame, 10.0 * places + frame["a"]


def typed(frame, categories=None):
    kind = pd.CategoricalDtype(categories) if categories else "category"
    return frame.assign(c=frame["c"].astype(kind))


def regressor(**options):
    return XGBRegressor(n_jobs=1, n_estimators=30, max_depth=3, enable_categorical=True, max_cat_to_onehot=1, **options)


def scores(model, rows):
    answer = model.scorer.score(rows)
    return answer.prediction if answer.probability is None else answer.probability


def assert_whoever_is_beside(model, frame, expected):
    """Each row alone, in small batches, shuffled and in one batch gives what the estimator itself gives."""
    rows = frame.to_dict("records")
    alone = np.array([scores(model, [row])[0] for row in rows])
    order = np.random.default_rng(1).permutation(len(rows))
    shuffled = np.empty(len(rows))
    for start in range(0, len(rows), 7):
        part = order[start : start + 7]
        shuffled[part] = scores(model, [rows[place] for place in part])
    for other in (alone, shuffled, scores(model, rows)):
        np.testing.assert_allclose(other, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("categories", [PLAIN, ACCENTS, JAPANESE], ids=["ascii", "accents", "japanese"])
def test_xgboost_with_recorded_categories_scores_each_row_as_the_estimator(engine, tmp_path, categories):
    frame, y = training(categories)
    model = regressor().fit(typed(frame), y)
    served = added(engine, tmp_path, model, frame)
    feature = served.card.features[1]
    assert (feature.categories, feature.unknown) == (sorted(categories), "refuse")
    assert_whoever_is_beside(served, frame[:25], model.predict(typed(frame))[:25])


def test_xgboost_keeps_the_order_in_which_the_categories_were_given(engine, tmp_path):
    frame, y = training(["low", "middle", "high"])
    model = regressor().fit(typed(frame, ["low", "middle", "high"]), y)
    served = added(engine, tmp_path, model, frame)
    assert served.card.features[1].categories == ["low", "middle", "high"]
    assert_whoever_is_beside(served, frame[:25], model.predict(typed(frame, ["low", "middle", "high"]))[:25])


def test_category_that_no_reference_row_has_is_known_all_the_same(engine, tmp_path):
    frame, y = training(ACCENTS)
    model = regressor().fit(typed(frame), y)
    served = added(engine, tmp_path, model, frame[frame["c"] != "Célibataire"])
    assert served.card.features[1].categories == sorted(ACCENTS)
    assert_whoever_is_beside(served, frame[:25], model.predict(typed(frame))[:25])


# XGBoost 3.2, the last for Python 3.11, keeps of a text as many bytes as it has characters; later ones keep it whole.
KEEPS_TEXTS = tuple(map(int, xgboost.__version__.split(".")[:2])) >= (3, 4)


def test_text_that_xgboost_cut_and_no_row_completes_is_refused(engine, tmp_path):
    frame, y = training(JAPANESE)
    model = regressor().fit(typed(frame), y)
    fewer = frame[frame["c"] != "東京"]
    if KEEPS_TEXTS:
        served = added(engine, tmp_path, model, fewer)
        assert served.card.features[1].categories == sorted(JAPANESE)
        assert_whoever_is_beside(served, frame[:25], model.predict(typed(frame))[:25])
        return
    with pytest.raises(
        ArtefactError, match=r"recorded the categories of c, and the 3 .* give reference rows in which each of the 4"
    ):
        added(engine, tmp_path, model, fewer)


def test_text_that_xgboost_itself_confuses_is_refused(engine, tmp_path):
    frame, y = training(["a", "b", "ß", "à", "é"])
    model = regressor().fit(typed(frame), y)
    off = np.abs(model.predict(typed(frame)) - y).max()  # on the very frame that it was trained on
    if KEEPS_TEXTS:
        assert off < 5
        served = added(engine, tmp_path, model, frame)
        assert_whoever_is_beside(served, frame[:25], model.predict(typed(frame))[:25])
        return
    assert off > 5
    with pytest.raises(ArtefactError, match="XGBoost itself confuses the categories of c"):
        added(engine, tmp_path, model, frame)


def without_record(model):
    """Return the model as XGBoost before 3.1 saved it: its trees, and no list of categories."""
    booster = model.get_booster()
    raw = booster.save_raw("json").decode()
    start = raw.index('"cats":')
    depth, end = 0, start + len('"cats":')
    while True:
        depth += {"{": 1, "}": -1}.get(raw[end], 0)
        end += 1
        if depth == 0:
            break
    empty = '"cats":{"enc":[],"feature_segments":[],"sorted_idx":[]}'
    booster.load_model(bytearray((raw[:start] + empty + raw[end:]).encode()))
    return model


@pytest.mark.parametrize("categories", [PLAIN, ACCENTS], ids=["ascii", "accents"])
def test_xgboost_without_a_record_takes_the_categories_of_the_reference(engine, tmp_path, caplog, categories):
    frame, y = training(categories)
    model = regressor().fit(typed(frame), y)
    expected = model.predict(typed(frame))
    served = added(engine, tmp_path, without_record(model), frame)
    assert served.card.features[1].categories == sorted(categories)
    assert "XGBoost before 3.1 saved the model without the categories of c" in served.card.notes
    assert "name their column with --scores" in caplog.text
    assert_whoever_is_beside(served, frame[:25], expected[:25])


def test_xgboost_without_a_record_and_without_enough_categories_is_refused(engine, tmp_path):
    frame, y = training(PLAIN)
    model = without_record(regressor().fit(typed(frame), y))
    with pytest.raises(ArtefactError, match=r"knows at least \d and the reference rows, or the card, have 2"):
        added(engine, tmp_path, model, frame[frame["c"].isin(PLAIN[:2])])


def test_wrong_categories_of_the_reference_are_found_by_the_scores(engine, tmp_path):
    frame, y = training(PLAIN)
    model = regressor().fit(typed(frame, PLAIN[::-1]), y)
    scored = frame.assign(score=model.predict(typed(frame, PLAIN[::-1])))
    with pytest.raises(ArtefactError, match="does not give here the scores of the column 'score'"):
        added(engine, tmp_path, without_record(model), scored, scores="score")


def classes(y):
    return (y > y.median()).astype(int)


def in_pipeline(frame, y):
    encode = ColumnTransformer([("a", StandardScaler(), ["a"])], remainder="passthrough").set_output(transform="pandas")
    return make_pipeline(encode, XGBClassifier(n_jobs=1, n_estimators=8, enable_categorical=True)).fit(frame, y)


def calibrated(frame, y):
    return CalibratedClassifierCV(XGBClassifier(n_jobs=1, n_estimators=8, enable_categorical=True), cv=2).fit(frame, y)


def light(frame, y):
    return LGBMClassifier(n_jobs=1, n_estimators=8, min_child_samples=2, verbose=-1).fit(frame, y)


@pytest.mark.parametrize(
    ("train", "categories"),
    [(in_pipeline, ACCENTS), (calibrated, ACCENTS), (light, ACCENTS), (in_pipeline, [3, 7, 20]), (light, [3, 7, 20])],
)
def test_other_places_of_a_booster_are_found(engine, tmp_path, train, categories):
    frame, y = training(categories)
    model = train(typed(frame.assign(b=frame["c"])).assign(b=frame["a"]), classes(y))
    rows = frame.assign(b=frame["a"])
    served = added(engine, tmp_path, model, rows)
    assert served.card.features[1].categories == sorted(categories)
    assert served.card.features[1].type == ("string" if categories is ACCENTS else "integer")
    expected = model.predict_proba(typed(rows))[:25, 1]
    assert_whoever_is_beside(served, rows[:25].astype({"c": object}), expected)


def test_ordered_categories_of_lightgbm_are_those_of_its_list(engine, tmp_path):
    frame, y = training(PLAIN)
    ranks = pd.CategoricalDtype(PLAIN[::-1], ordered=True)
    frame["rank"] = np.random.default_rng(2).permutation(frame["c"])
    trained = typed(frame).astype({"rank": ranks})
    model = light(trained, classes(y + 20.0 * trained["rank"].cat.codes))
    served = added(engine, tmp_path, model, frame)
    assert served.card.features[2].categories == PLAIN[::-1]
    assert_whoever_is_beside(served, frame[:25], model.predict_proba(trained)[:25, 1])


def test_lightgbm_takes_an_unknown_category_for_missing(engine, tmp_path):
    frame, y = training(PLAIN)
    frame["one"] = "always"  # LightGBM tells nothing of a column with one category
    model = light(typed(frame).astype({"one": "category"}), classes(y))
    served = added(engine, tmp_path, model, frame)
    assert served.card.features[1].unknown == "accept"
    missing = typed(frame[:1]).astype({"one": "category"}).assign(c=pd.Categorical([None], categories=PLAIN))
    expected = model.predict_proba(missing)[0, 1]
    assert scores(served, [{"a": frame["a"][0], "c": "Oslo", "one": "always"}])[0] == pytest.approx(expected, abs=1e-6)


def test_encoder_before_the_booster_leaves_nothing_to_list(engine, tmp_path):
    frame, y = training(PLAIN)
    encode = ColumnTransformer([("c", OrdinalEncoder(), ["c"])], remainder="passthrough")
    model = make_pipeline(
        encode, XGBClassifier(n_jobs=1, n_estimators=8, enable_categorical=True, feature_types=["c", "q"])
    )
    model.fit(frame, classes(y))
    served = added(engine, tmp_path, model, frame)
    assert_whoever_is_beside(served, frame[:25], model.predict_proba(frame)[:25, 1])

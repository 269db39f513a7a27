"""Pipelines that were trained on no table get what they were trained on: a sequence of texts, or dicts."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer

from shared.database.engine import make_engine
from shared.errors import CardError
from shared.tables import Table
from tests.support.brief import prove_briefly
from tests.support.registered import added

TEXTS = ["great, love it", "awful, broken", "fine", "love love", "NA", "75001", "broken again"] * 3
LIKED = [1, 0, 0, 1, 1, 0, 0] * 3


@pytest.fixture
def engine(tmp_path, monkeypatch):
    prove_briefly(monkeypatch)
    engine = make_engine(f"sqlite:///{tmp_path / 'guichet.db'}")
    Table.metadata.create_all(engine)
    yield engine
    engine.dispose()


class Lower(TransformerMixin, BaseEstimator):
    """A step of the user's own, which notes nothing of what it was trained on."""

    def fit(self, texts, y=None):
        return self

    def transform(self, texts):
        return texts.str.lower()


class Column(TransformerMixin, BaseEstimator):
    """Another, which takes its column out of a table."""

    def fit(self, table, y=None):
        return self

    def transform(self, table):
        return table["review"]


def behind(*steps):
    return make_pipeline(*steps, LogisticRegression())


def lower_all(texts):
    return texts.str.lower()


WHOLE = {
    "tfidf": behind(TfidfVectorizer()),
    "counts": behind(CountVectorizer(ngram_range=(1, 2))),
    "hashes": behind(HashingVectorizer(n_features=64)),
    "union": behind(FeatureUnion([("words", TfidfVectorizer()), ("letters", CountVectorizer(analyzer="char"))])),
    "function first": behind(FunctionTransformer(lower_all), TfidfVectorizer(lowercase=False)),
    "own step first": behind(Lower(), TfidfVectorizer(lowercase=False)),
    "search": GridSearchCV(behind(TfidfVectorizer()), {"logisticregression__C": [0.5, 1.0]}, cv=2),
    "calibrated": CalibratedClassifierCV(behind(TfidfVectorizer()), cv=2),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_pipeline_of_texts_scores_each_text_as_the_estimator(engine, tmp_path, kind):
    model = WHOLE[kind].fit(pd.Series(TEXTS), LIKED)
    served = added(engine, tmp_path, model, pd.DataFrame({"review": TEXTS}))
    expected = model.predict_proba(pd.Series(TEXTS))[:, 1]
    rows = [{"review": text} for text in TEXTS]
    assert np.ptp(expected) > 0.05
    assert served.scorer.score(rows).probability == pytest.approx(expected, abs=1e-9)
    assert [served.scorer.score([row]).probability[0] for row in rows[:7]] == pytest.approx(expected[:7], abs=1e-9)
    assert served.card.features[0].type == "string"


def test_pipeline_that_was_trained_on_a_table_gets_a_table(engine, tmp_path):
    table = pd.DataFrame({"review": TEXTS})
    for model in (
        behind(Column(), TfidfVectorizer()),
        behind(ColumnTransformer([("words", TfidfVectorizer(), "review")])),
    ):
        model.fit(table, LIKED)
        served = added(engine, tmp_path, model, table)
        expected = model.predict_proba(table)[:, 1]
        assert served.scorer.score(table.to_dict("records")).probability == pytest.approx(expected, abs=1e-9)


def test_pipeline_of_dicts_gets_dicts(engine, tmp_path):
    table = pd.DataFrame({"city": ["Lyon", "Paris", "Brest"] * 7, "age": range(21)})
    model = behind(DictVectorizer()).fit(table.to_dict("records"), LIKED)
    served = added(engine, tmp_path, model, table)
    expected = model.predict_proba(table.to_dict("records"))[:, 1]
    assert served.scorer.score(table.to_dict("records")).probability == pytest.approx(expected, abs=1e-9)


def test_reference_rows_with_more_than_the_text_are_refused_by_their_names(engine, tmp_path):
    model = WHOLE["tfidf"].fit(TEXTS, LIKED)
    with pytest.raises(CardError, match=r"takes one column of texts, and the reference rows have 2 \(review, liked\)"):
        added(engine, tmp_path, model, pd.DataFrame({"review": TEXTS, "liked": LIKED}))
    served = added(engine, tmp_path, model, pd.DataFrame({"review": TEXTS, "liked": LIKED}), target="liked")
    assert [feature.name for feature in served.card.features] == ["review"]

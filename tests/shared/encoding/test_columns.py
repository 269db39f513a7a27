"""Rows by column: every path scores them as it scores the same rows one by one, to the last bit."""

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder
from threadpoolctl import threadpool_limits

from shared.cards.card import Card
from shared.cards.features import Feature
from shared.cards.validator import RowValidator
from shared.encoding.columns import Column, Columns
from shared.encoding.compile import compile_encoding
from shared.encoding.estimator_inputs import make_frame_input
from shared.errors import ArtefactError
from shared.scoring.scorers import EncodedScorer, PipelineScorer, native
from shared.scoring.scores import response_reader
from shared.scoring.selection import build
from shared.scoring.trees import Trees

FEATURES = [
    Feature(name="age", type="integer"),
    Feature(name="children", type="integer", nullable=True),
    Feature(name="income", type="number", nullable=True),
    Feature(name="remote", type="boolean"),
    Feature(name="moved", type="boolean", nullable=True),
    Feature(name="team", type="string", nullable=True),
    Feature(name="city", type="string"),
]
NUMBERS = ["age", "children", "income", "remote", "moved"]
TEXTS = ["team", "city"]


def card_of(features=FEATURES, task="binary"):
    labels = {"binary": {"0": "no", "1": "yes"}, "multiclass": {"0": "a", "1": "b", "2": "c"}, "regression": {}}[task]
    return Card(name="m", version=1, task=task, sha256="0" * 64, features=features, labels=labels)


def columns_of(card, rows):
    """Turn canonical rows on their side, each distinct value once."""
    columns = {}
    for feature in card.features:
        values = [row[feature.name] for row in rows]
        distinct = list(dict.fromkeys(values))
        codes = np.array([distinct.index(value) for value in values], dtype=np.int32)
        kind = object if feature.type == "string" else np.float64
        columns[feature.name] = Column(feature.type, np.array(distinct, dtype=kind), codes)
    return Columns(columns, len(rows))


def rows_of(count=90, seed=3):
    draw = np.random.default_rng(seed)
    return [
        {
            "age": int(draw.integers(18, 70)),
            "children": None if i % 5 == 2 else int(draw.integers(4)),
            "income": None if i % 7 == 3 else float(draw.lognormal(10, 1)),
            "remote": bool(draw.integers(2)),
            "moved": None if i % 11 == 5 else bool(draw.integers(2)),
            "team": None if i % 9 == 4 else ["sales", "tech", "legal", "tax"][int(draw.integers(4))],
            "city": ["Lyon", "Paris", "Brest", "Nice"][int(draw.integers(4))],
        }
        for i in range(count)
    ]


def assert_same_scores(scorer, columns, rows):
    expected, by_column = scorer.score(rows), scorer.score_columns(columns)
    for part in ("prediction", "probability", "probabilities"):
        from_rows, from_columns = getattr(expected, part), getattr(by_column, part)
        assert (from_columns is None) == (from_rows is None)
        if from_rows is not None:
            np.testing.assert_array_equal(from_columns, from_rows, strict=True)
    if by_column.probability is not None:
        assert by_column.probability.tobytes() == expected.probability.tobytes()


# --- the container -------------------------------------------------------------------------------------------------


def test_columns_give_back_the_rows_that_they_were_made_of():
    rows = rows_of()
    columns = columns_of(card_of(), rows)
    assert columns.rows() == rows
    kinds = [{name: type(value) for name, value in row.items()} for row in rows]
    assert [{name: type(value) for name, value in row.items()} for row in columns.rows()] == kinds
    assert list(columns.rows()[0]) == list(rows[0])


def test_null_is_nan_among_floats_and_none_among_objects():
    columns = columns_of(card_of(), rows_of())
    assert np.isnan(columns.floats("income")[3])
    assert columns.objects("income")[3] is None
    assert columns.objects("team")[4] is None
    assert columns.floats("remote").dtype == np.float64
    assert set(columns.floats("remote").tolist()) == {0.0, 1.0}


def test_text_is_no_column_of_floats():
    with pytest.raises(TypeError, match="team is text"):
        columns_of(card_of(), rows_of()).floats("team")


def test_column_of_some_rows_holds_those_rows():
    column = columns_of(card_of(), rows_of()).columns["age"].at(np.array([7, 2]))
    assert Columns({"age": column}, 2).objects("age") == [rows_of()[7]["age"], rows_of()[2]["age"]]


# --- encodings -----------------------------------------------------------------------------------------------------

UNKNOWN = {"handle_unknown": "use_encoded_value", "unknown_value": -1}
PREPROCESSING = {
    "scaled": ColumnTransformer([("n", make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS)]),
    "indicated": ColumnTransformer([("n", make_pipeline(SimpleImputer(add_indicator=True), MinMaxScaler()), NUMBERS)]),
    "missing kept": ColumnTransformer([("n", StandardScaler(), NUMBERS), ("o", "passthrough", ["age"])]),
    "one-hot of texts": ColumnTransformer(
        [("t", OneHotEncoder(handle_unknown="ignore"), TEXTS)], remainder="passthrough"
    ),
    "one-hot of imputed texts": ColumnTransformer(
        [("t", make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder()), TEXTS)]
    ),
    "one-hot of integers": ColumnTransformer(
        [
            ("i", OneHotEncoder(handle_unknown="ignore"), ["age", "children"]),
            ("b", OneHotEncoder(drop="first"), ["remote"]),
        ]
    ),
    "ordinal": ColumnTransformer(
        [
            (
                "t",
                OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2),
                TEXTS,
            ),
            ("n", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["age", "moved"]),
        ]
    ),
    "target": ColumnTransformer([("t", TargetEncoder(cv=KFold(3)), TEXTS), ("n", "passthrough", ["income"])]),
}


@pytest.mark.parametrize("preprocessing", PREPROCESSING.values(), ids=PREPROCESSING)
def test_encoding_of_columns_is_the_encoding_of_rows_to_the_last_bit(preprocessing):
    card, rows = card_of(), rows_of(200)
    frame = make_frame_input(card, StandardScaler())(rows)
    pipeline = make_pipeline(preprocessing, DummyClassifier())
    pipeline.fit(frame, [row["age"] > 40 for row in rows])
    encoding, _ = compile_encoding(card, pipeline)
    unseen = (
        [row | {"team": "art", "city": "Metz", "age": 99} for row in rows_of(5)] if "one" not in str(pipeline) else []
    )
    plain = [row for row in rows_of(200, seed=8) if row["age"] in {row["age"] for row in rows}]
    tried = plain + (unseen if accepts(encoding, unseen) else [])
    encoded = encoding.encode_columns(columns_of(card, tried))
    assert encoded.tobytes() == encoding.encode(tried).tobytes()
    assert encoded.shape == (len(tried), encoding.block.width)


def accepts(encoding, rows):
    try:
        encoding.encode(rows)
    except ValueError:
        return False
    return True


# --- scorers -------------------------------------------------------------------------------------------------------


def fitted(task, final, *, nulls=True):
    features = FEATURES if nulls else [feature.model_copy(update={"nullable": False}) for feature in FEATURES]
    card = card_of(features, task)
    rows = rows_of(240)
    if not nulls:
        rows = [row | {n: 1 for n in ("children", "income", "moved") if row[n] is None} for row in rows]
        rows = [
            row | {"income": row["income"] / 1e4, "moved": bool(row["moved"]), "team": row["team"] or "none"}
            for row in rows
        ]
    rows, _ = RowValidator(card).validate_many(rows)
    numbers = [make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS] if nulls else [StandardScaler(), NUMBERS]
    encode = ColumnTransformer(
        [("n", *numbers), ("t", OneHotEncoder(handle_unknown="ignore", sparse_output=False), TEXTS)]
    )
    age = np.array([row["age"] for row in rows])
    target = {"binary": age > 40, "multiclass": np.digitize(age, [35, 50]), "regression": age * 1.7}[task]
    with threadpool_limits(1):
        pipeline = make_pipeline(encode, final).fit(make_frame_input(card, StandardScaler())(rows), target)
    return card, pipeline, rows


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("kind", ["pipeline", "numpy"])
def test_columns_are_scored_as_their_rows_are(task, kind):
    final = LinearRegression() if task == "regression" else LogisticRegression()
    card, pipeline, rows = fitted(task, final)
    scorer = build(card, pipeline, kind, rows[:40])
    assert scorer.kind == kind
    assert_same_scores(scorer, columns_of(card, rows), rows)
    assert len(scorer.score_columns(columns_of(card, [])).prediction) == 0


def test_columns_are_scored_by_trees_as_their_rows_are():
    card, pipeline, rows = fitted("binary", HistGradientBoostingClassifier(max_iter=10))
    scorer = build(card, pipeline, "treelite", rows[:40])
    assert_same_scores(scorer, columns_of(card, rows), rows)


def test_columns_are_scored_by_onnx_as_their_rows_are():
    card, pipeline, rows = fitted("binary", LogisticRegression(), nulls=False)
    try:
        scorer = build(card, pipeline, "onnx", rows[:40])
    except ArtefactError as error:  # a proof that fails is the proof's own matter
        pytest.fail(str(error))
    assert_same_scores(scorer, columns_of(card, rows), rows)
    assert len(scorer.score_columns(columns_of(card, [])).prediction) == 0


@pytest.mark.parametrize("name", ["attrition", "credit", "energy", "turnover"])
def test_columns_of_an_example_model_are_scored_as_their_rows_are(name, example_package):
    package = example_package(name)
    card, rows = package.card, package.reference[:300]
    reader = response_reader(card, package.estimator)
    encoding, final = compile_encoding(card, package.estimator)
    scorers = [
        PipelineScorer(card, package.estimator, reader),
        EncodedScorer("numpy", encoding, native(final, reader, sparse=encoding.sparse), reader, final),
    ]
    if name in ("attrition", "energy"):  # the others are linear
        scorers.append(EncodedScorer("treelite", encoding, Trees(final, reader, sparse=False).score, reader, final))
    for scorer in scorers:
        assert_same_scores(scorer, columns_of(card, rows), rows)

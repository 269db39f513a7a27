"""The own encoding gives bit for bit what scikit-learn's ColumnTransformer gives for the same rows."""

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    QuantileTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)

from shared.cards.card import Card
from shared.cards.features import Feature
from shared.encoding.blocks import Unsupported
from shared.encoding.compile import compile_encoding, feature_origins
from shared.encoding.estimator_inputs import make_array_input, make_frame_input
from shared.encoding.plan import describe_block
from shared.errors import CardError

FEATURES = [
    Feature(name="age", type="integer"),
    Feature(name="income", type="number", nullable=True),
    Feature(name="rate", type="number"),
    Feature(name="remote", type="boolean"),
    Feature(name="team", type="string", nullable=True),
    Feature(name="city", type="string"),
]
NUMBERS = ["age", "income", "rate"]
TEXTS = ["team", "city"]


def card(features=FEATURES, task="binary"):
    return Card(name="staff", version=1, task=task, sha256="0" * 64, features=features)


def rows(count=60, *, nulls=True, seed=3):
    draw = np.random.default_rng(seed)
    return [
        {
            "age": int(draw.integers(18, 70)),
            "income": None if nulls and i % 7 == 3 else float(draw.lognormal(10, 1)),
            "rate": float(draw.normal()),
            "remote": bool(draw.integers(2)),
            "team": None if nulls and i % 9 == 4 else ["sales", "tech", "legal", "tax"][int(draw.integers(4))],
            "city": ["Lyon", "Paris", "Brest"][i % 3],
        }
        for i in range(count)
    ]


def target(sample):
    return np.array([(row["age"] + 10 * row["rate"] > 45) + 0 for row in sample])


def fitted(preprocessing, *, sample=None):
    sample = rows() if sample is None else sample
    pipeline = Pipeline([("before", preprocessing), ("model", DummyClassifier())])
    fake = FunctionTransformer()
    frame = make_frame_input(card(), fake)(sample)
    pipeline.fit(frame, target(sample))
    return pipeline


def assert_same(pipeline, sample):
    encoding, _ = compile_encoding(card(), pipeline)
    expected = pipeline[:-1].transform(make_frame_input(card(), pipeline)(sample))
    expected = expected.toarray() if hasattr(expected, "toarray") else np.asarray(expected, dtype=float)
    np.testing.assert_array_equal(encoding.encode(sample), expected, strict=True)
    for row in sample[:5]:  # alone: numpy's logarithm of one number may differ by a bit from the same one's among many
        alone = pipeline[:-1].transform(make_frame_input(card(), pipeline)([row]))
        alone = alone.toarray() if hasattr(alone, "toarray") else np.asarray(alone, dtype=float)
        np.testing.assert_array_equal(encoding.encode([row]), alone, strict=True)
    by_parts = make_array_input(card(), pipeline)(sample)
    by_parts = by_parts.toarray() if hasattr(by_parts, "toarray") else by_parts
    np.testing.assert_array_equal(np.asarray(by_parts, dtype=float), expected)
    assert_attributed(encoding, sample)
    return encoding


def assert_attributed(encoding, sample):
    """A column changes only with the features that it is said to be computed from."""
    encoded = encoding.encode(sample)
    assert len(encoding.features) == encoded.shape[1]
    for name in FEATURES:
        moved = [
            row | {name.name: other[name.name]} for row, other in zip(sample, [*sample[1:], sample[0]], strict=True)
        ]
        changed = (encoding.encode(moved) != encoded) & ~(np.isnan(encoding.encode(moved)) & np.isnan(encoded))
        unsaid = [names for names, is_hit in zip(encoding.features, changed.any(axis=0), strict=True) if is_hit]
        assert all(name.name in names for names in unsaid), f"{name.name} changes a column of {unsaid}"


CHAINS = {
    "standard": make_pipeline(SimpleImputer(), StandardScaler()),
    "standard without mean": make_pipeline(SimpleImputer(strategy="median"), StandardScaler(with_mean=False)),
    "minmax clipped": make_pipeline(SimpleImputer(strategy="constant", fill_value=7), MinMaxScaler(clip=True)),
    "minmax": make_pipeline(SimpleImputer(), MinMaxScaler((-1, 3))),
    "robust": make_pipeline(SimpleImputer(), RobustScaler()),
    "robust then standard": make_pipeline(SimpleImputer(), RobustScaler(with_centering=False), StandardScaler()),
    "maximum": make_pipeline(SimpleImputer(), MaxAbsScaler()),
    "scaled, then imputed": make_pipeline(StandardScaler(), SimpleImputer()),
    "imputed with an indicator": make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()),
    "polynomial": make_pipeline(SimpleImputer(), PolynomialFeatures(2, include_bias=False), StandardScaler()),
    "union": make_pipeline(SimpleImputer(), FeatureUnion([("a", StandardScaler()), ("b", PCA(2))])),
}


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_numbers_are_scaled_as_scikit_learn_does_it(chain):
    pipeline = fitted(ColumnTransformer([("n", chain, NUMBERS), ("b", "passthrough", ["remote"])]))
    assert_same(pipeline, rows(80, seed=9))


COLUMNS_OF = {  # transformer -> the features of each column that it makes of age, income and rate
    "polynomial": (
        make_pipeline(SimpleImputer(), PolynomialFeatures(2, interaction_only=True)),
        [(), ("age",), ("income",), ("rate",), ("age", "income"), ("age", "rate"), ("income", "rate")],
    ),
    "component": (make_pipeline(SimpleImputer(), PCA(1)), [("age", "income", "rate")]),
    "indicator": (SimpleImputer(add_indicator=True), [("age",), ("income",), ("rate",), ("income",)]),
    "selected": (make_pipeline(SimpleImputer(), SelectKBest(k=1)), [("age",)]),
    "bins": (
        make_pipeline(SimpleImputer(), KBinsDiscretizer(2, quantile_method="averaged_inverted_cdf")),
        [("age",), ("age",), ("income",), ("income",), ("rate",), ("rate",)],
    ),
    "quantiles": (
        make_pipeline(SimpleImputer(), QuantileTransformer(n_quantiles=9)),
        [("age",), ("income",), ("rate",)],
    ),
    "spline": (
        make_pipeline(SimpleImputer(), SplineTransformer(2, degree=1)),
        [("age",), ("age",), ("income",), ("income",), ("rate",), ("rate",)],
    ),
    "scaled, then encoded": (
        make_pipeline(SimpleImputer(), KBinsDiscretizer(2, encode="ordinal", quantile_method="averaged_inverted_cdf")),
        [("age",), ("income",), ("rate",)],
    ),
}


@pytest.mark.parametrize("name", COLUMNS_OF)
def test_each_encoded_column_names_the_features_it_is_computed_from(name):
    transformer, expected = COLUMNS_OF[name]
    pipeline = fitted(
        ColumnTransformer([("t", ENCODERS["one-hot, first dropped"], TEXTS), ("n", transformer, NUMBERS)])
    )
    encoding = assert_same(pipeline, rows(80, seed=9))
    assert encoding.features == [("team",)] * 4 + [("city",)] * 2 + expected
    assert feature_origins(card(), pipeline) == encoding.features


def test_plan_says_what_becomes_of_each_feature_and_what_the_pipeline_does_itself():
    inner = ColumnTransformer([("n", SimpleImputer(strategy="median"), ["age"]), ("b", "passthrough", ["remote"])])
    sample = rows()
    pipeline = make_pipeline(inner, PCA(1), DummyClassifier())
    pipeline.fit(make_frame_input(card(), FunctionTransformer())(sample), target(sample))
    median = pipeline[0].named_transformers_["n"].statistics_[0]
    assert list(describe_block(compile_encoding(card(), pipeline)[0].block)) == [
        "column 0: age (1 feature)",
        f"  SimpleImputer [compiled]: a missing value becomes {median:g} (median); 1 column",
        "column 1: remote (1 feature)",
        "  taken as the row has it",
        "then all of these columns together:",
        "  PCA [the pipeline's own code, on an array]: its own transform; 1 column",
    ]


ENCODERS = {
    "one-hot": OneHotEncoder(handle_unknown="ignore"),
    "one-hot, dense": OneHotEncoder(handle_unknown="ignore", sparse_output=False),
    "one-hot, first dropped": OneHotEncoder(drop="first"),
    "one-hot, rare merged": OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=15),
    "ordinal": OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2),
    "imputed by a constant": make_pipeline(
        SimpleImputer(strategy="constant", fill_value="none"), OneHotEncoder(handle_unknown="ignore")
    ),
    "imputed by the most frequent": make_pipeline(
        SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore", drop="if_binary")
    ),
    "encoded, then scaled": make_pipeline(
        OneHotEncoder(handle_unknown="ignore", sparse_output=False), StandardScaler()
    ),
    "target": TargetEncoder(cv=2),
}


@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
def test_categories_are_encoded_as_the_fitted_encoder_does_it(encoder):
    pipeline = fitted(ColumnTransformer([("t", encoder, TEXTS), ("n", SimpleImputer(), NUMBERS)]))
    assert_same(pipeline, rows(80, seed=9))


@pytest.mark.parametrize("name", ["one-hot", "one-hot, rare merged", "ordinal", "target", "imputed by a constant"])
def test_unknown_category_is_encoded_as_the_encoder_does_it(name):
    pipeline = fitted(ColumnTransformer([("t", ENCODERS[name], TEXTS), ("n", SimpleImputer(), NUMBERS)]))
    sample = rows(20)
    sample[0]["team"] = "never seen"
    sample[1]["city"] = ""
    assert_same(pipeline, sample)


def test_unknown_category_is_refused_where_the_encoder_refuses_it_and_is_not_repeated():
    pipeline = fitted(ColumnTransformer([("t", OneHotEncoder(), ["city"]), ("n", StandardScaler(), ["age"])]))
    encoding, _ = compile_encoding(card(), pipeline)
    with pytest.raises(ValueError, match="city has a category") as caught:
        encoding.encode([rows(1)[0] | {"city": "Atlantis"}])
    assert "Atlantis" not in str(caught.value)


def test_none_is_a_category_of_its_own_where_the_encoder_was_trained_with_it():
    sample = rows(30)
    frame = pd.DataFrame({"team": pd.Series([row["team"] for row in sample], dtype="object")})
    encoder = OneHotEncoder(handle_unknown="ignore").fit(frame)
    assert None in encoder.categories_[0]
    pipeline = Pipeline([("t", ColumnTransformer([("t", encoder, ["team"])]).fit(frame)), ("m", DummyClassifier())])
    encoding, _ = compile_encoding(card(), pipeline)
    assert encoding.encode([sample[0] | {"team": None}]).sum() == 1.0
    assert_same(pipeline, sample)


def test_encoder_behind_another_step_is_asked_on_every_call():
    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=9, encoded_missing_value=8)
    first = ColumnTransformer([("t", ordinal, TEXTS)])
    sample = rows(40)
    pipeline = make_pipeline(first, OneHotEncoder(handle_unknown="ignore"), OrdinalEncoder(), DummyClassifier())
    pipeline[1].set_params(sparse_output=False)
    pipeline.fit(make_frame_input(card(), FunctionTransformer())(sample), target(sample))
    assert_same(pipeline, rows(25, seed=4))


def test_null_is_refused_where_the_encoder_was_trained_without():
    pipeline = fitted(
        ColumnTransformer([("t", OneHotEncoder(), TEXTS), ("n", StandardScaler(), ["age"])]),
        sample=rows(nulls=False),
    )
    encoding, _ = compile_encoding(card(), pipeline)
    with pytest.raises(ValueError, match="team is null"):
        encoding.encode([rows(1)[0] | {"team": None}])


def test_integers_and_booleans_can_be_categories():
    numeric = OneHotEncoder(handle_unknown="ignore")
    pipeline = fitted(ColumnTransformer([("c", numeric, ["age", "remote"]), ("n", StandardScaler(), ["rate"])]))
    sample = rows(40)
    sample[0]["age"] = 999
    assert_same(pipeline, sample)


def test_columns_can_be_chosen_by_position_slice_mask_and_remainder():
    pipeline = fitted(
        ColumnTransformer(
            [
                ("position", StandardScaler(), [2, 0]),
                ("slice", OneHotEncoder(handle_unknown="ignore"), slice(4, 6)),
                ("mask", MinMaxScaler(), [False, False, False, True, False, False]),
                ("none", StandardScaler(), []),
                ("gone", "drop", ["rate"]),
            ],
            remainder=SimpleImputer(),
        )
    )
    assert_same(pipeline, rows(30))


def test_names_may_come_in_another_order_than_in_the_card():
    sample = rows(60, nulls=False)
    frame = pd.DataFrame(sample)[["rate", "age", "income"]]
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, target(sample))
    encoding, _ = compile_encoding(card(), pipeline)
    np.testing.assert_array_equal(encoding.encode(sample), pipeline[0].transform(frame))


def test_no_rows_give_an_empty_matrix_and_one_feature_is_enough():
    pipeline = fitted(ColumnTransformer([("t", OneHotEncoder(), ["city"]), ("n", StandardScaler(), ["age"])]))
    encoding = assert_same(pipeline, rows(10))
    assert encoding.encode([]).shape == (0, 4)


def test_steps_behind_the_column_transformer_are_followed_through_a_search():
    inner = Pipeline(
        [
            ("columns", ColumnTransformer([("n", SimpleImputer(), NUMBERS), ("t", OneHotEncoder(), ["city"])])),
            ("scale", StandardScaler(with_mean=False)),
            ("model", LogisticRegression(max_iter=2000)),
        ]
    )
    sample = rows()
    search = GridSearchCV(inner, {"model__C": [0.1, 1.0]}, cv=2)
    search.fit(make_frame_input(card(), FunctionTransformer())(sample), target(sample))
    assert_same(search.best_estimator_, rows(20, seed=5))
    encoding, final = compile_encoding(card(), search)
    assert encoding.block.width == 6
    assert isinstance(final, LogisticRegression)


def test_native_categories_of_histogram_boosting_are_encoded():
    sample = rows()
    frame = make_frame_input(card(), FunctionTransformer())(sample).astype({"team": "category", "city": "category"})
    model = HistGradientBoostingClassifier(max_iter=5, min_samples_leaf=4).fit(frame, target(sample))
    encoding, final = compile_encoding(card(), model)
    sample[0]["city"] = "never seen"
    expected = model.predict_proba(make_frame_input(card(), model)(sample))
    np.testing.assert_array_equal(final.predict_proba(encoding.encode(sample)), expected)


def test_encoded_columns_know_which_feature_they_scale():
    pipeline = fitted(
        ColumnTransformer([("n", make_pipeline(SimpleImputer(), StandardScaler(), MinMaxScaler()), ["age"])])
    )
    encoding, _ = compile_encoding(card(), pipeline)
    (name, scale, shift), sample = encoding.origins[0], rows(3)
    assert name == "age"
    assert encoding.encode(sample)[:, 0] * scale + shift == pytest.approx([row["age"] for row in sample])


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (FunctionTransformer(np.log1p), "FunctionTransformer"),
        ("passthrough", "team is text"),
        (SimpleImputer(strategy="most_frequent"), "is text"),
    ],
)
def test_step_without_an_array_equivalent_is_named(step, reason):
    columns = ["age"] if isinstance(step, FunctionTransformer) else TEXTS
    transformer = ColumnTransformer([("x", step, columns)]).fit(make_frame_input(card(), FunctionTransformer())(rows()))
    with pytest.raises(Unsupported, match=reason):
        compile_encoding(card(), Pipeline([("x", transformer), ("model", LogisticRegression())]))


def test_feature_that_the_card_does_not_describe_is_refused_by_name():
    sample = rows(20, nulls=False)
    frame = pd.DataFrame(sample)[["age", "rate"]].rename(columns={"rate": "speed"})
    model = LogisticRegression().fit(frame, target(sample))
    with pytest.raises(CardError, match="trained with speed"):
        compile_encoding(card(), model)
    with pytest.raises(CardError, match="takes 2 features, but model"):
        compile_encoding(card(), LogisticRegression().fit(frame.to_numpy(), target(sample)))

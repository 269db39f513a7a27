"""The bodies of MLflow's scoring server: whatever is sent, it is rows of the card or a refusal in our words."""

import json
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.models.catalog import Version
from api.protocols.mlflow.dataframes import FORMS, read_csv_frame, read_json_frame
from shared.cards.card import Card, Feature
from shared.cards.validator import RowValidator
from shared.config.settings import Settings
from shared.errors import GuichetError

NUMBERS = [Feature(name="age", type="integer"), Feature(name="basket", type="number", nullable=True)]
MIXED = [*NUMBERS, Feature(name="city", type="string")]


def version_of(features: list[Feature]) -> Version:
    card = Card(name="visitors", version=1, task="regression", sha256="0" * 64, features=features)
    return Version(1, card.sha256, card, RowValidator(card), {}, datetime.now(UTC))


SETTINGS = Settings(runtime="sync")
VERSIONS = [version_of(MIXED), version_of(NUMBERS), version_of(NUMBERS[:1])]

VALUES = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(-2, 2), st.sampled_from(["", "Lyon", "NaN"]))
NAMES = st.sampled_from(["age", "basket", "city", "columns", "data", "index", "inputs", "params", "", "~/"])
ANYTHING = st.recursive(VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4))
MATRIX = st.lists(st.lists(VALUES, min_size=1, max_size=3), max_size=3)
BODIES = st.one_of(
    ANYTHING,
    st.dictionaries(st.sampled_from([*FORMS, "params"]), ANYTHING | MATRIX, min_size=1, max_size=2),
    st.fixed_dictionaries(
        {"dataframe_split": st.fixed_dictionaries({"columns": st.lists(NAMES, max_size=3) | VALUES, "data": MATRIX})}
    ),
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(VERSIONS), BODIES)
def test_body_of_any_shape_is_rows_of_the_card_or_a_refusal(version: Version, body: Any) -> None:
    frame, refusal = None, None
    try:
        frame = read_json_frame(version, orjson.dumps(body), SETTINGS)
    except GuichetError as error:
        refusal = error
    if refusal is not None:
        assert 400 <= refusal.status < 500
        assert refusal.detail.endswith(".")
    else:
        assert frame is not None
        assert frame.rows
        assert [version.validator.validate(row) for row in frame.rows] == frame.rows


@pytest.mark.parametrize("columns", [[False, True], [0.0, 1.0], [0, True]])
def test_only_whole_numbers_are_the_columns_of_a_matrix(columns: list[Any]) -> None:
    def read(names: list[Any]) -> list[dict[str, Any]]:
        body = {"dataframe_split": {"columns": names, "data": [[1, 2.5]]}}
        return read_json_frame(VERSIONS[1], orjson.dumps(body), SETTINGS).rows

    assert read([0, 1]) == [{"age": 1, "basket": 2.5}]
    with pytest.raises(GuichetError, match="must be a list of names"):
        read(columns)


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "age": st.integers(-(2**53), 2**53),
            "basket": st.none() | st.floats(allow_nan=False, allow_infinity=False),
            "city": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8),
        }
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=40, deadline=None)
@given(ROWS)
def test_every_form_of_the_same_rows_is_the_same_rows(rows: list[dict[str, Any]]) -> None:
    names = ["city", "age", "basket"]
    forms = [
        {"dataframe_split": {"columns": names, "data": [[row[name] for name in names] for row in rows]}},
        {"dataframe_records": rows},
        {"inputs": {name: [row[name] for row in rows] for name in names}},
        {"inputs": rows},
        {"instances": rows},
        {"instances": {name: [[row[name]] for row in rows] for name in names}},
    ]
    if len(rows) == 1:
        forms.append({"inputs": rows[0]})
    for form in forms:
        assert read_json_frame(VERSIONS[0], orjson.dumps(form), SETTINGS).rows == rows
        with_nan = json.dumps(form).replace("null", "NaN") if "null" not in str(rows) else json.dumps(form)
        assert read_json_frame(VERSIONS[0], with_nan.encode(), SETTINGS).rows == rows


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"age,basket\n", b"age\n1\n", b"age,basket\n1\n", b"\xff", b"PK\x03\x04", b"{}"]
)
def test_csv_that_is_none_or_does_not_fit_is_refused(data: bytes) -> None:
    with pytest.raises(GuichetError) as refused:
        read_csv_frame(VERSIONS[1], data, SETTINGS, encoding=None)
    assert 400 <= refused.value.status < 500

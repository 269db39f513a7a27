"""The response and refusal sections of a card: what they may say, and the answers that they make."""

from typing import Any

import pytest
from pydantic import ValidationError

from shared.cards.card import Card
from shared.cards.response import Response, fill, rename, shaped_fields
from shared.packages.package import UNHASHED

BINARY: dict[str, Any] = {
    "name": "leaving",
    "version": 1,
    "task": "binary",
    "sha256": UNHASHED,
    "labels": {"0": "stays", "1": "leaves"},
    "features": [{"name": "age", "type": "integer"}],
}
SOURCES = {
    "prediction": 1,
    "label": "leaves",
    "probability": 0.78125,
    "confidence": 0.78125,
    "threshold": 0.5,
    "probabilities": {"stays": 0.21875, "leaves": 0.78125},
    "model_version": 3,
    "latency_ms": 4.25,
}


def fields(**described: Any) -> Response:
    return Response.model_validate({"fields": described})


def test_answer_has_the_fields_of_the_card_and_no_others() -> None:
    words = fields(Prediction="label", Chance="probability")
    assert fill(words.fields, SOURCES) == {"Prediction": "leaves", "Chance": 0.78125}


def test_fields_may_be_rounded_constant_or_of_one_label() -> None:
    words = fields(
        chance={"source": "probability", "digits": 3},
        stays={"source": "probability", "label": "stays", "digits": 2},
        service={"value": "leaving-api"},
        beta={"value": False},
    )
    assert fill(words.fields, SOURCES) == {"chance": 0.781, "stays": 0.22, "service": "leaving-api", "beta": False}


def test_what_the_model_does_not_give_is_null() -> None:
    words = fields(stays={"source": "probability", "label": "stays", "digits": 2}, all="probabilities")
    sources = SOURCES | {"probability": None, "probabilities": None}
    assert fill(words.fields, sources) == {"stays": None, "all": None}


@pytest.mark.parametrize(
    ("response", "message"),
    [
        ({"fields": {"x": "probabilty"}}, "the source of x is not one of prediction, label, probability"),
        ({"fields": {"x": {}}}, "give a source, or a constant value"),
        ({"fields": {"x": {"source": "label", "value": 1}}}, "give a source, or a constant value"),
        ({"fields": {"x": {"value": None}}}, "not null"),
        ({"fields": {"x": {"value": float("inf")}}}, "finite number"),
        ({"fields": {"": "label"}}, "a response field has no name"),
        ({"fields": {"x": {"source": "label", "label": "stays"}}}, "label belongs to the source probability"),
        ({"fields": {"x": {"source": "label", "digits": 2}}}, "digits belong to a source that is a number"),
        ({"fields": {"x": {"source": "probability", "label": "goes"}}}, "one of: stays, leaves"),
        ({"fields": {"x": "items"}}, "the source of x is not one of"),
        ({"batch": {"n": "n_rows"}}, "lack its items"),
        ({"batch": {"items": "items", "x": "label"}}, "the source of x is not one of n_rows"),
        ({"rows": {}}, "Extra inputs are not permitted"),
    ],
)
def test_response_that_cannot_be_answered_is_refused(response: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Card.model_validate(BINARY | {"response": response})


@pytest.mark.parametrize("source", ["label", "probability", "threshold", "probabilities"])
def test_regression_answers_with_its_number_alone(source: str) -> None:
    card = BINARY | {"task": "regression", "labels": {}, "response": {"fields": {"x": source}}}
    with pytest.raises(ValidationError, match="which regression does not give"):
        Card.model_validate(card)


def test_only_binary_models_answer_with_a_threshold() -> None:
    card = BINARY | {"task": "multiclass", "labels": {}, "response": {"fields": {"x": "threshold"}}}
    with pytest.raises(ValidationError, match="only binary models"):
        Card.model_validate(card)


def test_regression_has_no_probabilities_for_invocations() -> None:
    with pytest.raises(ValidationError, match="no probabilities"):
        Card.model_validate(BINARY | {"task": "regression", "labels": {}, "invocations": "predict_proba"})


@pytest.mark.parametrize(
    "change",
    [
        {"refusal": {"status": 418}},
        {"refusal": {"body": "xml"}},
        {"input": "nested"},
        {"wrapper": ""},
        {"wrapper": "model"},
        {"on_error": "ignore"},
    ],
)
def test_words_that_no_client_can_speak_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Card.model_validate(BINARY | change)


def test_card_with_words_reads_back_as_it_was_written() -> None:
    response = {
        "fields": {"z": "label", "a": {"value": 1}, "p": {"source": "probability", "digits": 3}},
        "batch": {"items": "items", "n": "n_rows"},
    }
    card = Card.model_validate(BINARY | {"response": response, "refusal": {"status": 400, "body": "detail"}})
    again = Card.model_validate(card.model_dump(mode="json", exclude_none=True))
    assert again == card
    assert again.response is not None
    assert list(again.response.fields) == ["z", "a", "p"]


def test_table_columns_take_the_names_of_the_response() -> None:
    sources = ["prediction", "label", "probability", "threshold"]
    words = fields(Prediction="label", Chance="probability", rounded={"source": "threshold", "digits": 1})
    assert rename(words, sources, others=()) == ["prediction_raw", "Prediction", "Chance", "rounded"]
    assert rename(None, sources, others=()) == sources


def test_probability_of_the_positive_label_is_the_probability_in_tables() -> None:
    words = fields(
        leaves={"source": "probability", "label": "leaves"}, stays={"source": "probability", "label": "stays"}
    )
    assert rename(words, ["probability"], others=(), positive="leaves") == ["leaves"]
    assert rename(words, ["probability"], others=()) == ["probability"]


def test_table_columns_are_never_called_the_same() -> None:
    sources = ["prediction", "label", "probability", "threshold"]
    words = fields(prediction="label", again="label", error="probability")
    assert rename(words, sources, others=("error",)) == ["prediction_raw", "prediction", "probability", "threshold"]


# ── numbers in other forms ───────────────────────────────────────────────────────────────────────────────────────

BANDS = [{"min": 0.3, "value": "medium"}, {"value": "low"}, {"exclusive_min": 0.7, "value": "high"}]


@pytest.mark.parametrize(
    ("probability", "level"), [(0.0, "low"), (0.2999, "low"), (0.3, "medium"), (0.7, "medium"), (0.7001, "high")]
)
def test_bands_name_the_number_from_their_limits_on(probability: float, level: str) -> None:
    words = fields(risk_level={"source": "probability", "bands": BANDS})
    assert fill(words.fields, SOURCES | {"probability": probability}) == {"risk_level": level}


def test_bands_of_a_label_may_be_any_constant() -> None:
    bands = [{"min": 0.2, "value": True}, {"value": False}]
    words = fields(safe={"source": "probability", "label": "stays", "bands": bands})
    assert fill(words.fields, SOURCES) == {"safe": True}


@pytest.mark.parametrize(
    ("field", "answer"),
    [
        ({"source": "probability", "times": 100}, 78.125),
        ({"source": "probability", "times": 100, "digits": 1}, 78.1),
        ({"source": "probability", "times": 100, "whole": True}, 78),
        ({"source": "latency_ms", "whole": True}, 4),
        ({"source": "probability", "times": 100, "digits": 2, "text": "{} %"}, "78.12 %"),
        ({"source": "probability", "times": 100, "whole": True, "text": "risk: {}%"}, "risk: 78%"),
        ({"source": "label", "text": "The client {}."}, "The client leaves."),
        ({"source": "probability", "bands": BANDS, "text": "{} risk"}, "high risk"),
        ({"source": "confidence", "digits": 2}, 0.78),
    ],
)
def test_number_is_written_as_the_client_reads_it(field: dict[str, Any], answer: object) -> None:
    text = fill(fields(x=field).fields, SOURCES)["x"]
    assert text == answer
    assert type(text) is type(answer)


def test_percentages_have_no_rounding_noise() -> None:
    words = fields(percent={"source": "probability", "times": 100})
    assert fill(words.fields, SOURCES | {"probability": 0.29}) == {"percent": 29.0}


def test_number_that_the_model_does_not_give_is_null_in_every_form() -> None:
    words = fields(
        level={"source": "probability", "bands": BANDS},
        percent={"source": "probability", "times": 100, "text": "{} %"},
    )
    assert fill(words.fields, SOURCES | {"probability": None}) == {"level": None, "percent": None}


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"source": "label", "bands": BANDS}, "bands belong to a source that is a number"),
        ({"source": "label", "times": 100}, "times belong to a source that is a number"),
        ({"source": "label", "whole": True}, "whole belongs to a source that is a number"),
        ({"source": "probability", "bands": BANDS, "digits": 1}, "leave out times, digits and whole"),
        ({"source": "probability", "bands": BANDS[:1]}, "at least 2"),
        ({"source": "probability", "bands": [BANDS[0], BANDS[2]]}, "the lowest, has neither limit"),
        ({"source": "probability", "bands": [BANDS[1], BANDS[1]]}, "the lowest, has neither limit"),
        ({"source": "probability", "bands": [{"min": 0, "exclusive_min": 1, "value": 1}, BANDS[1]]}, "one of them"),
        ({"source": "probability", "whole": True, "digits": 2}, "a whole number has no digits"),
        ({"source": "probability", "text": "percent"}, "text has one place"),
        ({"source": "probability", "text": "{0:.1f} {}"}, "text has one place"),
        ({"source": "model", "text": "{}!"}, "text belongs to"),
    ],
)
def test_form_that_no_number_can_have_is_refused(field: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        fields(x=field)


def test_class_of_many_is_no_number() -> None:
    card = BINARY | {
        "task": "multiclass",
        "labels": {},
        "response": {"fields": {"x": {"source": "prediction", "whole": True}}},
    }
    with pytest.raises(ValidationError, match="which is a class here"):
        Card.model_validate(card)


def test_columns_of_a_table_leave_their_names_to_other_forms() -> None:
    words = fields(probability={"source": "probability", "times": 100}, level={"source": "probability", "bands": BANDS})
    shaped = shaped_fields(words, others=("row_no", "error"))
    assert list(shaped) == ["probability", "level"]
    assert rename(words, ["probability"], others=shaped) == ["probability_raw"]

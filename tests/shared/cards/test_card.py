"""Cards: what they accept, how they are written and read, and what they tell callers."""

import json

import pytest
from pydantic import ValidationError

from shared.cards.card import Card, Feature, Rule
from shared.cards.validator import RowValidator
from shared.errors import CardError

AGE = {"name": "age", "type": "integer", "min": 16, "max": 70, "example": 41}
PAY = {"name": "pay", "type": "number", "exclusive_min": 0}
JOB = {"name": "job", "type": "string", "max_length": 50, "categories": ["Manager", "Consultant"]}


def card(**changes):
    fields = {
        "name": "attrition",
        "version": 3,
        "task": "binary",
        "sha256": "ab" * 32,
        "labels": {"0": "Reste", "1": "Part"},
        "features": [AGE, PAY, JOB],
        "rules": ["pay > age"],
    }
    return Card.model_validate(fields | changes)


def test_card_written_to_a_file_is_read_back_equal(tmp_path):
    original = card(metrics={"auc": 0.81}, trained_at="2024-11-20T10:00:00Z", libraries={"scikit-learn": "1.9.0"})
    original.dump(tmp_path / "model.json")
    assert Card.load(tmp_path / "model.json") == original
    assert [path.name for path in tmp_path.iterdir()] == ["model.json"]


def test_card_file_is_readable_utf8_with_plain_bounds(tmp_path):
    card(labels={"0": "Resté", "1": "Part"}).dump(tmp_path / "model.json")
    text = (tmp_path / "model.json").read_text(encoding="utf-8")
    assert "Resté" in text
    assert '"min": 16,' in text


def test_card_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "model.json"
    path.write_bytes(b"\xef\xbb\xbf" + card().model_dump_json().encode())
    assert Card.load(path) == card()


def test_card_survives_the_database_as_json():
    assert Card.model_validate(json.loads(json.dumps(card().model_dump(mode="json")))) == card()


def test_missing_card_file_is_named_with_what_to_do(tmp_path):
    with pytest.raises(CardError, match=r"model\.json is missing: .*shared\.registry add") as caught:
        Card.load(tmp_path / "model.json")
    assert str(tmp_path) in caught.value.detail


def test_directory_in_place_of_a_card_is_an_error_with_a_sentence(tmp_path):
    with pytest.raises(CardError, match="cannot be read"):
        Card.load(tmp_path)


def test_card_cannot_be_written_into_a_missing_folder(tmp_path):
    with pytest.raises(CardError, match="cannot be written"):
        card().dump(tmp_path / "nowhere" / "model.json")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"name": "a"}'])
def test_card_file_that_is_not_a_card_is_refused_by_name(tmp_path, content):
    path = tmp_path / "model.json"
    path.write_bytes(content)
    with pytest.raises(CardError, match=r"model\.json is not a valid card: .*Correct the file"):
        Card.load(path)


def test_fault_in_a_card_file_is_located(tmp_path):
    path = tmp_path / "model.json"
    fields = card().model_dump(mode="json")
    fields["features"][1]["type"] = "text"
    path.write_text(json.dumps(fields))
    with pytest.raises(CardError, match=r"features\.1\.type"):
        Card.load(path)


@pytest.mark.parametrize("name", ["Attrition", "1a", "", "a b", "a/b", "../a", "a\n", "a" * 64])
def test_unsafe_model_name_is_refused(name):
    with pytest.raises(ValidationError):
        card(name=name)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"features": []}, "at least 1 item"),
        ({"features": [AGE, AGE], "rules": []}, "age is described twice"),
        ({"sha256": "ab"}, "pattern"),
        ({"version": 0}, "greater than or equal to 1"),
        ({"task": "regression", "labels": {}, "threshold": 0.5}, "a threshold is for binary models"),
        ({"task": "regression", "threshold": None}, "labels are for classifiers"),
        ({"labels": {"0": "Reste"}}, "a binary model has two labels"),
        ({"labels": {"0": "Same", "1": "Same"}}, "the same label"),
        ({"threshold": 1.5}, "less than or equal to 1"),
        ({"rules": ["age < height"]}, "names `height`, which is not a feature"),
        ({"metrics": {"auc": float("nan")}}, "finite"),
        ({"thresold": 0.2}, "Extra inputs"),
    ],
)
def test_inconsistent_card_is_refused_with_its_reason(changes, sentence):
    with pytest.raises(ValidationError, match=sentence):
        card(**changes)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"type": "string", "min": 1}, "min and max are for integers and numbers"),
        ({"type": "number", "max_length": 1}, "are for strings"),
        ({"type": "integer", "min": 5, "max": 4}, "no value lies within"),
        ({"type": "integer", "exclusive_min": 1, "exclusive_max": 2}, "no value lies within"),
        ({"type": "number", "exclusive_min": 1, "max": 1}, "no value lies within"),
        ({"type": "string", "min_length": 5, "max_length": 4}, "no value lies within"),
        ({"type": "integer", "categories": [1, "2"]}, "every category must be an integer"),
        ({"type": "integer", "categories": [True]}, "every category must be an integer"),
        ({"type": "string", "unknown": "refuse"}, "no categories are given"),
        ({"type": "integer", "max": 70, "example": 71}, "the example must be an integer of at most 70"),
        ({"type": "number", "min": float("inf")}, "finite"),
        ({"type": "float"}, "Input should be 'integer', 'number', 'string' or 'boolean'"),
        ({"type": "number", "maximum": 1}, "Extra inputs"),
    ],
)
def test_inconsistent_feature_is_refused_with_its_reason(fields, sentence):
    with pytest.raises(ValidationError, match=sentence):
        Feature.model_validate({"name": "x"} | fields)


def test_equal_bounds_leave_one_value():
    assert Feature(name="x", type="number", min=1, max=1).max == 1


def test_threshold_of_a_binary_model_defaults_to_one_half():
    assert card().threshold == 0.5
    assert card(threshold=0).threshold == 0
    assert card(task="multiclass").threshold is None


def test_rule_may_be_written_as_a_plain_string():
    assert card().rules == [Rule(expression="pay > age")]


def test_example_takes_the_given_value_and_makes_up_the_rest():
    assert card().example() == {"age": 41, "pay": 1.0, "job": "Manager"}


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "integer", "min": 100},
        {"type": "integer", "max": -5},
        {"type": "number", "exclusive_min": 5, "exclusive_max": 5.1},
        {"type": "number", "max": -3.5},
        {"type": "number", "exclusive_max": -1e12},
        {"type": "string", "min_length": 7, "max_length": 7},
        {"type": "string", "max_length": 0},
        {"type": "string", "categories": ["a"], "unknown": "refuse"},
        {"type": "boolean"},
    ],
)
def test_made_up_example_fits_its_feature(fields):
    subject = card(features=[{"name": "x"} | fields], rules=[])
    assert RowValidator(subject).validate(subject.example())["x"] is not None


def test_json_schema_of_a_row_says_types_bounds_and_what_is_required():
    schema = card(
        features=[AGE, PAY | {"required": False}, JOB | {"unknown": "refuse", "nullable": True, "description": "Role"}]
    ).json_schema()
    assert schema["required"] == ["age", "job"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["age"] == {"type": "integer", "minimum": 16, "maximum": 70, "examples": [41]}
    assert schema["properties"]["pay"] == {"type": ["number", "null"], "exclusiveMinimum": 0, "examples": [1.0]}
    assert schema["properties"]["job"]["enum"] == ["Manager", "Consultant", None]
    assert schema["properties"]["job"]["description"] == "Role"
    assert schema["examples"] == [{"age": 41, "pay": 1.0, "job": "Manager"}]


def test_json_schema_of_a_relaxed_card_requires_nothing():
    schema = card(missing="null", extra="ignore").json_schema()
    assert schema["required"] == []
    assert schema["additionalProperties"] is True
    assert schema["properties"]["age"]["type"] == ["integer", "null"]

"""Derived features: the language of their formulas, what rows get, and what is said where nothing can be computed."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from shared.cards.card import Card
from shared.cards.validator import RowValidator
from shared.errors import RowFaults
from shared.packages.package import UNHASHED

INPUTS: list[dict[str, Any]] = [
    {"name": "weight", "type": "number", "exclusive_min": 0},
    {"name": "height", "type": "number"},
    {"name": "visits", "type": "integer"},
    {"name": "smoker", "type": "boolean"},
    {"name": "post", "type": "string"},
    {"name": "monthly income", "type": "number"},
]
ROW: dict[str, Any] = {
    "weight": 81.0,
    "height": 1.8,
    "visits": 7,
    "smoker": True,
    "post": "clerk",
    "monthly income": 1000.0,
}


def card(derived: str, kind: str = "number", **words: Any) -> Card:
    inputs = [feature | words.pop(feature["name"], {}) for feature in INPUTS]
    content = {
        "name": "health",
        "version": 1,
        "task": "binary",
        "sha256": UNHASHED,
        "labels": {"0": "well", "1": "ill"},
        "features": [{"name": "x", "type": kind, "derived": derived, **words.pop("x", {})}],
        "inputs": inputs,
    }
    return Card.model_validate(content | words)


def value(derived: str, kind: str = "number", row: dict[str, Any] = ROW) -> Any:
    return RowValidator(card(derived, kind)).validate(row)["x"]


@pytest.mark.parametrize(
    ("derived", "kind", "expected"),
    [
        ("weight / (height * height)", "number", 81 / (1.8 * 1.8)),
        ("weight / height ** 2", "number", 81 / 1.8**2),
        ("log1p(weight) + sqrt(height) - exp(-visits)", "number", math.log1p(81) + math.sqrt(1.8) - math.exp(-7)),
        ("log(weight) + log10(weight)", "number", math.log(81) + math.log10(81)),
        ("round(weight / height, 2)", "number", 45.0),
        ("round(height)", "integer", 2),
        ("floor(height) + ceil(height)", "integer", 3),
        ("visits // 2 + visits % 2", "integer", 4),
        ("min(visits, 5) * 2", "integer", 10),
        ("abs(-visits)", "integer", 7),
        ("visits >= 4 and weight > 80", "boolean", True),
        ("not smoker or visits == 3", "boolean", False),
        ("visits >= 4", "integer", 1),
        ("smoker * 2 + (post == 'clerk')", "integer", 3),
        ("'heavy' if weight > 80 else 'light'", "string", "heavy"),
        ("'few' if visits < 3 else 'some' if visits < 10 else 'many'", "string", "some"),
        ("post in ('clerk', 'lead')", "boolean", True),
        ("visits not in (1, 2, -7)", "boolean", True),
        ("post != 'lead'", "integer", 1),
        ("post", "string", "clerk"),
        ("0.0 if visits == 0 else weight / visits", "number", 81 / 7),
        ('feature("monthly income") * 12', "number", 12000.0),
        ('feature("post") == "clerk"', "boolean", True),
        ("10 < visits * 2 <= 14", "boolean", True),
    ],
)
def test_formula_gives_what_python_gives(derived: str, kind: str, expected: object) -> None:
    result = value(derived, kind)
    assert result == (pytest.approx(expected) if isinstance(expected, float) else expected)
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("derived", "kind", "message"),
    [
        ("weight /", "number", "is no formula for x"),
        ("__import__('os')", "number", "is not allowed in the formula"),
        ("weight.real", "number", "is not allowed in the formula"),
        ("[y for y in (1, 2)]", "number", "is not allowed in the formula"),
        ("(lambda: 1)()", "number", "is not allowed in the formula"),
        ("open('x')", "number", "is not allowed in the formula"),
        ("weight << 2", "number", "is not allowed in the formula"),
        ("f'{weight}'", "string", "is not allowed in the formula"),
        ("sqrt(weight, 2)", "number", "takes one number"),
        ("round(weight, visits)", "number", "round\\(\\) takes 0 to 15 digits"),
        ("wieght * 2", "number", "which is not a feature"),
        ("post * 2", "number", "only numbers can be computed with"),
        ("post < 'b'", "boolean", "only numbers can be computed with"),
        ("post == 3", "boolean", "text is compared with text only"),
        ("weight if visits else height", "number", "take comparisons"),
        ("'a' if smoker else 1", "string", "gives text or a number"),
        ("visits in weight", "boolean", "takes a list"),
        ("visits in (1, weight)", "boolean", "list of constants"),
        ("weight > 3", "string", "gives true or false, and the feature is string"),
        ("weight", "boolean", "gives a number, and the feature is boolean"),
        ("post", "number", "gives text, and the feature is number"),
        ("1 + 1", "number", "names no feature"),
        ("x + weight", "number", "needs itself or another"),
        ("-" * 250 + "weight", "number", "is too long"),
        ("9" * 400 + " * weight", "number", "too large"),
    ],
)
def test_formula_that_is_not_in_the_language_is_refused_with_the_card(derived: str, kind: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        card(derived, kind)


@pytest.mark.parametrize(
    ("derived", "row"),
    [
        ("weight / height", {"height": 0.0}),
        ("weight // visits", {"visits": 0}),
        ("log(height)", {"height": -1.0}),
        ("sqrt(height)", {"height": -1.0}),
        ("height ** 0.5", {"height": -1.0}),
        ("exp(weight)", {"weight": 1e6}),
        ("weight * weight", {"weight": 1e200}),
        ("weight ** visits", {"visits": 2**53}),
    ],
)
def test_row_of_which_nothing_can_be_computed_is_refused_at_what_the_caller_sent(
    derived: str, row: dict[str, Any]
) -> None:
    with pytest.raises(RowFaults) as refusal:
        value(derived, row=ROW | row)
    [fault] = refusal.value.faults
    assert fault.code == "derived"
    assert fault.pointer.removeprefix("/") in ROW
    assert f"x, which is {derived}, cannot be computed from these values: correct " in fault.message
    assert fault.message in refusal.value.detail


def test_value_outside_the_limits_of_the_feature_is_told_with_its_formula() -> None:
    validator = RowValidator(card("weight / height ** 2", x={"max": 80}))
    with pytest.raises(
        RowFaults, match=r"x, which is .*, must be a finite number of at most 80: correct weight, height"
    ):
        validator.validate(ROW | {"height": 0.5})
    whole = RowValidator(card("weight / 2", "integer"))
    assert whole.validate(ROW | {"weight": 80.0})["x"] == 40
    with pytest.raises(RowFaults, match="must be an integer"):
        whole.validate(ROW)


def test_row_holds_what_was_sent_and_what_the_model_gets() -> None:
    derived = RowValidator(card("weight / height"))
    canonical = derived.validate(ROW)
    assert list(canonical) == ["x", *ROW]
    assert {name: canonical[name] for name in ROW} == ROW
    assert derived.validate(canonical) == canonical  # what is stored is valid itself


def test_derived_feature_may_be_sent_where_it_is_right() -> None:
    validator = RowValidator(card("weight / height"))
    assert validator.validate(ROW | {"x": 45.0000000001})["x"] == 45.0
    with pytest.raises(RowFaults) as refusal:
        validator.validate(ROW | {"x": 46.0})
    [fault] = refusal.value.faults
    assert (fault.pointer, fault.code) == ("/x", "derived")
    assert fault.message == "must be left out, or be weight / height"
    with pytest.raises(RowFaults, match="x must be a finite number"):
        validator.validate(ROW | {"x": "45"})


def test_null_gives_null_where_the_model_takes_it_and_a_refusal_elsewhere() -> None:
    nullable = {"height": {"nullable": True}}
    assert (
        RowValidator(card("weight / height", **nullable, x={"nullable": True})).validate(ROW | {"height": None})["x"]
        is None
    )
    with pytest.raises(RowFaults, match="cannot be computed from null: give weight, height"):
        RowValidator(card("weight / height", **nullable)).validate(ROW | {"height": None})


def test_wrong_inputs_are_told_without_what_follows_from_them() -> None:
    with pytest.raises(RowFaults) as refusal:
        value("weight / height", row=ROW | {"height": "tall", "weight": -1.0})
    assert [(fault.pointer, fault.code) for fault in refusal.value.faults] == [
        ("/weight", "range"),
        ("/height", "type"),
    ]


def test_formulas_may_need_one_another_in_any_order() -> None:
    features = [
        {"name": "ratio", "type": "number", "derived": "bmi / visits"},
        {"name": "bmi", "type": "number", "derived": "weight / height ** 2"},
    ]
    validator = RowValidator(card("visits", "integer", features=features))
    canonical = validator.validate(ROW)
    assert canonical["ratio"] == pytest.approx(25 / 7)
    with pytest.raises(
        RowFaults, match=r"ratio, which is bmi / visits, cannot be computed .* correct weight, height, visits"
    ):
        validator.validate(ROW | {"visits": 0})
    circle = [*features[:1], features[1] | {"derived": "ratio * 2"}]
    with pytest.raises(ValidationError, match="ratio, bmi cannot be computed"):
        card("visits", "integer", features=circle)


def test_rules_may_be_about_inputs_and_derived_features() -> None:
    validator = RowValidator(card("weight / height ** 2", rules=[{"expression": "x < 60", "message": "too heavy"}]))
    validator.validate(ROW)
    with pytest.raises(RowFaults, match="too heavy"):
        validator.validate(ROW | {"height": 1.0})


def test_message_of_the_card_is_said_where_nothing_can_be_computed() -> None:
    validator = RowValidator(card("weight / height", x={"message": {"derived": "Give a height."}}))
    with pytest.raises(RowFaults, match=r"health@1: Give a height\.$"):
        validator.validate(ROW | {"height": 0.0})


def test_schema_and_example_are_what_callers_send() -> None:
    made = card("weight / height")
    assert list(made.example()) == list(ROW)
    assert list(made.json_schema()["properties"]) == list(ROW)
    assert RowValidator(made).validate(made.example())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"inputs": [{"name": "x", "type": "number"}]}, "described twice"),
        ({"inputs": [{"name": "y", "type": "number", "derived": "x"}]}, "only features of the model"),
        ({"x": {"default": 3.0}}, "leave the default out"),
    ],
)
def test_derived_feature_that_contradicts_its_card_is_refused(words: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        card("weight", **words)

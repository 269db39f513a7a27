"""The examples of a card that was inferred: like its reference rows, and nobody's."""

import random

import pytest

from shared.cards.card import Card
from shared.cards.examples import MADE_UP, masked, with_examples, without_people
from shared.cards.validator import RowValidator
from shared.packages.package import UNHASHED

FEATURES = [
    {"name": "age", "type": "integer"},
    {"name": "salary", "type": "number", "min": 0},
    {"name": "city", "type": "string", "categories": ["Brest", "Lyon"]},
    {"name": "member", "type": "boolean"},
    {"name": "hired", "type": "string"},
    {"name": "blank", "type": "number", "nullable": True},
]


def card(features=FEATURES, **more):
    return Card.model_validate(
        {"name": "m", "version": 1, "task": "regression", "sha256": UNHASHED, "features": features, "notes": ""} | more
    )


def people(count):
    rng = random.Random(7)
    return [
        {
            "age": rng.randint(18, 65),
            "salary": round(rng.uniform(20_000, 90_000), 2),
            "city": rng.choice(["Brest", "Lyon"]),
            "member": rng.random() < 0.5,
            "hired": f"20{rng.randint(10, 24)}-0{rng.randint(1, 9)}-{rng.randint(10, 28)}",
            "blank": None,
        }
        for _ in range(count)
    ]


@pytest.mark.parametrize("count", [1, 2, 5, 300])
def test_examples_fit_the_card_and_are_no_row_and_no_unique_value(count):
    rows = people(count)
    row = with_examples(card(), rows).example()
    RowValidator(card()).validate(row)
    assert row not in rows
    assert row["salary"] not in [each["salary"] for each in rows]
    assert row["hired"] == "2000-01-01"
    assert 18 <= row["age"] <= 71
    assert row["city"] == "Brest"


def test_examples_keep_the_rules_of_the_card():
    rule = {"expression": "begun < age", "message": "begun before the present age"}
    features = [{"name": "begun", "type": "integer", "max": 40}, {"name": "age", "type": "integer"}]
    rng = random.Random(3)
    rows = [{"begun": rng.randint(30, 40), "age": 44} for _ in range(3)] + [{"begun": 39, "age": 41}] * 2
    example = with_examples(card(features, rules=[rule]), rows).example()
    assert example["begun"] < example["age"]


def test_features_of_a_rule_that_nothing_made_up_keeps_have_no_example():
    rule = {"expression": "a == b + 12345", "message": "a is b and more"}
    features = [{"name": name, "type": "integer"} for name in "abc"]
    rows = [{"a": 12345 + number, "b": number, "c": 3} for number in range(7)]
    made = with_examples(card(features, rules=[rule]), rows)
    assert [feature.example for feature in made.features] == [None, None, 3]


def test_example_that_the_card_has_stays():
    features = [{"name": "age", "type": "integer", "example": 29}, {"name": "pay", "type": "integer"}]
    made = with_examples(card(features), [{"age": 50, "pay": 1234}])
    assert [feature.example for feature in made.features] == [29, 1000]


def test_text_that_many_rows_share_is_an_example_and_no_other_text():
    features = [{"name": "unit", "type": "string"}, {"name": "who", "type": "string"}]
    rows = [{"unit": "north", "who": f"Ann {number}"} for number in range(5)]
    assert with_examples(card(features), rows).example() == {"unit": "north", "who": "Xxx 1"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Jean Dupont", "Xxxx Xxxxxx"),
        ("jean.dupont@mail.fr", "xxxx.xxxxxx@xxxx.xx"),
        ("75011", "11111"),
        ("17/05/1984", "01/01/2000"),
        ("19840517", "20000101"),
        ("1984-05-17T08:30:00Z", "2000-01-01T01:01:01Z"),
        ("é" * 100, "x" * 40),
    ],
)
def test_masked_text_keeps_its_form(text, expected):
    assert masked(text) == expected


def test_examples_that_an_earlier_release_took_from_rows_are_not_told():
    features = [{"name": "age", "type": "integer", "example": 29}]
    old = card(features, notes="This card was inferred from the artefact and its reference rows.")
    assert [feature.example for feature in without_people(old).features] == [None]
    assert without_people(old).example() == {"age": 1}
    for notes in ("Written by hand.", f"This card was inferred from the artefact; {MADE_UP}."):
        assert without_people(card(features, notes=notes)).features[0].example == 29

"""Contracts: what a client relies on, laid over a card that knows nothing of it."""

import json
from pathlib import Path

import pytest

from examples.attrition.features import FEATURES, RULES
from shared.cards.card import Card
from shared.cards.features import Feature
from shared.errors import CardError
from shared.packages.contract import Contract, apply_contract, read_contract
from shared.packages.package import UNHASHED, Package

EXAMPLES = Path(__file__).parents[3] / "examples"


def package_of(*rows, **words):
    features = [
        Feature(name="age", type="integer", example=30),
        Feature(name="overtime", type="integer"),
        Feature(name="post", type="string", categories=["clerk", "lead"]),
    ]
    labels = {"0": "0", "1": "1"}
    card = Card(name="people", version=1, task="binary", sha256=UNHASHED, features=features, labels=labels, **words)
    return Package(card, None, list(rows) or [{"age": 30, "overtime": 1, "post": "clerk"}])


@pytest.fixture
def contract(tmp_path):
    path = tmp_path / "contract.json"

    def write(**content):
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write


def test_contract_gives_a_card_words_rules_and_limits_by_feature(contract):
    path = contract(
        labels={"0": "stays", "1": "leaves"},
        threshold=0.4,
        input="flat",
        missing="null",
        response={"fields": {"Answer": "label", "Chance": {"source": "probability", "label": "leaves"}}},
        refusal={"status": 400, "body": "detail"},
        rules=["age > overtime"],
        features=[
            {"name": "age", "min": 16, "type": "number"},
            {"name": "post", "max_length": 20, "unknown": "refuse"},
        ],
    )
    card = apply_contract(package_of(), path).card
    assert (card.input, card.missing, card.extra, card.threshold) == ("flat", "null", "refuse", 0.4)
    assert card.labels == {"0": "stays", "1": "leaves"}
    assert list(card.response.fields) == ["Answer", "Chance"]
    assert (card.refusal.status, card.refusal.body) == (400, "detail")
    assert [rule.expression for rule in card.rules] == ["age > overtime"]
    age, overtime, post = card.features
    assert (age.type, age.min, age.example) == ("number", 16, 30)  # what it leaves out stays
    assert overtime == package_of().card.features[1]
    assert (post.categories, post.unknown, post.max_length) == (["clerk", "lead"], "refuse", 20)


def test_rows_follow_the_types_of_the_contract(contract):
    path = contract(features=[{"name": "overtime", "type": "boolean"}, {"name": "age", "type": "number"}])
    assert apply_contract(package_of(), path).reference == [{"age": 30.0, "overtime": True, "post": "clerk"}]


def test_contract_changes_the_type_of_a_feature_with_its_categories_and_its_rows(contract):
    path = contract(features=[{"name": "age", "type": "string"}, {"name": "overtime", "type": "string"}])
    package = apply_contract(package_of(), path, rows=[{"age": "030", "overtime": "1", "post": "clerk"}])
    assert package.reference == [{"age": "030", "overtime": "1", "post": "clerk"}]  # as it is written in the file
    assert [feature.type for feature in package.card.features] == ["string", "string", "string"]
    assert package.card.features[0].example == "30"


def test_what_was_chosen_in_the_command_stands_against_the_contract(contract):
    path = contract(threshold=0.4, labels={"0": "stays", "1": "leaves"})
    card = apply_contract(package_of(threshold=0.7), path, but={"threshold", "name"}).card
    assert (card.threshold, card.labels["1"]) == (0.7, "leaves")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"sha256": "0"},
            "is not a contract: sha256: is not known: remove it, or correct its name. Of a card, it takes description,",
        ),
        ({"refusal": {"status": 404}}, "is not a contract: refusal.status: "),
        ({"features": [{"name": "age", "minimum": 16}]}, "is not a contract: features.0.minimum: "),
        (
            {"features": [{"name": "aeg", "min": 16}]},
            "names the feature 'aeg', which the model does not have: did you ",
        ),
        ({"features": [{"name": "x"}]}, "names the feature 'x', which the model does not have: it has age, overtime, "),
        ({"features": [{"name": "age"}, {"name": "age"}]}, "describes the feature 'age' twice: keep one."),
        (
            {"features": [{"name": "post", "min": 1}]},
            "does not fit the model people: features.2: post: min",
        ),
        ({"labels": {"0": "stays"}}, "does not fit the model people: a binary model has two labels"),
        (
            {"response": {"fields": {"p": {"source": "probability", "label": "Gone"}}}},
            "does not fit the model people: the response field p names a label that is not one of: 0, 1",
        ),
        ({"rules": ["age > salary"]}, "`age > salary` names `salary`, which is not a feature of the card"),
        (
            {"features": [{"name": "age", "min": 31}]},
            "does not fit the model people: features.0: age: the example must be an integer ",
        ),
        (
            {"rules": ["age < 30"]},
            "does not fit 1 of 1 reference rows of people: age < 30 must hold (1 row). It is row 1.",
        ),
    ],
)
def test_contract_that_does_not_fit_the_model_is_refused_and_says_where(contract, content, message):
    with pytest.raises(CardError) as refused:
        apply_contract(package_of(), contract(**content))
    assert message in refused.value.detail


def test_contract_whose_examples_break_a_rule_is_refused(contract):
    terms = [{"name": "overtime", "example": 31}, {"name": "post", "example": "lead"}]
    path = contract(rules=["age > overtime"], features=terms)
    with pytest.raises(CardError, match=r"the example of its features breaks a rule: age > overtime must hold\."):
        apply_contract(package_of(), path)


def test_file_that_is_no_contract_is_refused(tmp_path):
    with pytest.raises(CardError, match="is missing: name a JSON file with the part of a card"):
        read_contract(tmp_path / "contract.json")
    with pytest.raises(CardError, match="cannot be read"):
        read_contract(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(CardError, match=r"broken\.json is not a contract: Invalid JSON"):
        read_contract(tmp_path / "broken.json")


def test_contract_takes_nothing_but_fields_of_a_card():
    assert Contract.model_fields.keys() < Card.model_fields.keys()
    assert not Contract.model_fields.keys() & {"sha256", "task", "name", "version", "metrics", "libraries"}


def test_attrition_contract_says_of_features_and_rules_what_the_example_says():
    contract = read_contract(EXAMPLES / "attrition" / "contract.json")
    kept = {"categories", "unknown", "example"}
    features = [feature.model_dump(exclude_unset=True) for feature in contract.features]
    assert features == [
        feature.model_dump(exclude_none=True, exclude=kept | {"required", "nullable"}) for feature in FEATURES
    ]
    assert contract.rules == RULES

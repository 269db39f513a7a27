"""How the models' cards change the OpenAPI document: their rows, their words and their refusals."""

import copy

import pytest

from api.schemas.answers import problems
from api.schemas.cards import add_refusals, add_rows, add_words
from api.schemas.native import BatchBody, BatchItem, BatchResult, Result, SubmitBody
from tests.support.cards import people

WORDS = {"fields": {"score": {"source": "probability"}, "unit": {"value": "percent"}}}


def ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


@pytest.fixture
def own() -> dict[str, dict]:
    return {body.__name__: body.model_json_schema() for body in (SubmitBody, BatchBody, Result, BatchItem, BatchResult)}


def test_bodies_name_the_row_of_each_card_and_still_allow_every_object(own):
    before = copy.deepcopy(own)
    schemas = add_rows(own, [people(), people(name="n")])
    rows = [ref("m_row"), ref("n_row"), {"type": "object"}]
    assert schemas["SubmitBody"]["properties"]["features"]["anyOf"] == rows
    assert schemas["BatchBody"]["properties"]["rows"]["items"] == {"anyOf": rows}
    assert set(schemas["m_row"]["properties"]) == {feature.name for feature in people().features}
    assert own == before, "the schemas of the service are shared by all documents"


def test_card_in_the_services_own_words_adds_no_alternative(own):
    assert add_words(own, [people()]) == own


def test_answers_in_the_words_of_cards_stand_beside_the_native_one(own):
    before = copy.deepcopy(own)
    schemas = add_words(own, [people(response=WORDS), people(name="n", version=4, response=WORDS)])
    for name in ("Result", "BatchItem"):
        assert schemas[name]["anyOf"] == [ref(f"Own{name}"), ref("m_1_answer"), ref("n_4_answer")]
        assert schemas[f"Own{name}"] == {**own[name], "title": f"Own{name}"}
    answer = schemas["m_1_answer"]
    assert answer["properties"] == {"score": {"description": "From `probability`."}, "unit": {"const": "percent"}}
    assert (answer["required"], answer["additionalProperties"]) == (["score", "unit"], False)
    assert schemas["BatchResult"] == own["BatchResult"]
    assert own == before


def test_flat_body_has_the_features_beside_the_options(own):
    schemas = add_words(own, [people(input="flat")])
    options = set(own["SubmitBody"]["properties"]) - {"features"}
    assert set(schemas["m_1_body"]["properties"]) == options | {feature.name for feature in people().features}
    assert schemas["BatchBody"] == own["BatchBody"]


def test_wrapped_body_has_the_row_below_the_cards_own_name(own):
    body = add_words(own, [people(wrapper="person")])["m_1_body"]
    assert body["required"] == ["person"]
    assert "features" not in body["properties"]
    assert "title" not in body["properties"]["person"]
    assert body["additionalProperties"] is False


def test_flat_batch_is_an_array(own):
    assert add_words(own, [people(batch_input="flat")])["m_1_batch"]["type"] == "array"


def test_error_formats_of_cards_are_listed_once_beside_the_problem():
    own = problems({400: "Not JSON.", 422: "Does not fit."})
    native = {str(status): answer for status, answer in own.items()}
    cards = [people(refusal={"body": body}) for body in ("detail", "message", "fastapi", "problem")]
    changed = add_refusals(native, [*cards, people()])
    content = changed["422"]["content"]
    assert content["application/problem+json"] == native["422"]["content"]["application/problem+json"]
    sentence, listed = content["application/json"]["schema"]["anyOf"]
    assert sentence["properties"]["detail"]["type"] == "string"
    assert listed["properties"]["detail"]["type"] == "array"
    assert changed["400"] == native["400"]
    assert add_refusals(native, cards[:2])["422"]["content"]["application/json"]["schema"] == sentence
    assert add_refusals(native, [people()]) == native


def test_card_that_refuses_with_400_changes_that_status():
    native = {str(status): answer for status, answer in problems({400: "Not JSON.", 422: "Does not fit."}).items()}
    changed = add_refusals(native, [people(refusal={"status": 400, "body": "fastapi"})])
    assert set(changed["400"]["content"]) == {"application/problem+json", "application/json"}
    assert changed["422"] == native["422"]

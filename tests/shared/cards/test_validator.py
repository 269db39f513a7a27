"""Rows against a card: the canonical row of a good one, every fault of a bad one."""

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.cards.card import Card
from shared.cards.features import Feature
from shared.cards.validator import RowValidator, Tally
from shared.errors import RowFaults
from shared.packages.package import UNHASHED

FEATURES = [
    {"name": "age", "type": "integer", "min": 16, "max": 70},
    {"name": "start", "type": "integer"},
    {"name": "pay", "type": "number", "exclusive_min": 0},
    {"name": "score", "type": "number", "nullable": True},
    {"name": "job", "type": "string", "min_length": 1, "max_length": 10},
    {"name": "grade", "type": "string", "categories": ["a", "b"], "unknown": "refuse"},
    {"name": "level", "type": "integer", "categories": [0, 1], "unknown": "refuse", "required": False},
    {"name": "city", "type": "string", "categories": ["Paris"], "required": False},
    {"name": "overtime", "type": "boolean"},
]
ROW = {"age": 40, "start": 20, "pay": 3000, "score": 1.5, "job": "Manager", "grade": "a", "overtime": False}
CANONICAL = ROW | {"level": None, "city": None}
RULES = ["start < age", "score <= pay"]


def card(**changes):
    fields = {"name": "staff", "version": 1, "task": "binary", "sha256": "0" * 64, "features": FEATURES, "rules": RULES}
    return Card.model_validate(fields | changes)


VALIDATOR = RowValidator(card())
RELAXED = RowValidator(card(missing="null", extra="ignore"))


def faults_of(row, validator=VALIDATOR):
    with pytest.raises(RowFaults) as caught:
        validator.validate(row)
    return caught.value.faults


def only_fault(row, validator=VALIDATOR):
    (fault,) = faults_of(row, validator)
    return fault.pointer, fault.code, fault.message


def test_good_row_becomes_canonical_in_card_order():
    canonical = VALIDATOR.validate(dict(reversed(ROW.items())))
    assert canonical == CANONICAL
    assert list(canonical) == [feature["name"] for feature in FEATURES]
    assert type(canonical["pay"]) is float


def test_canonical_row_is_itself_valid():
    assert VALIDATOR.validate(VALIDATOR.validate(ROW)) == CANONICAL


def test_integral_float_is_taken_as_an_integer():
    canonical = VALIDATOR.validate(ROW | {"age": 40.0, "level": 1.0})
    assert (canonical["age"], canonical["level"]) == (40, 1)
    assert type(canonical["age"]) is int


def test_callers_row_is_left_as_it_was():
    row = ROW | {"age": 40.0}
    VALIDATOR.validate(row)
    assert type(row["age"]) is float


@pytest.mark.parametrize("value", [True, "40", 40.5, [40], {}, float("nan"), float("inf")])
def test_value_that_is_no_integer_is_a_type_fault(value):
    assert only_fault(ROW | {"age": value}) == ("/age", "type", "must be an integer between 16 and 70")


@pytest.mark.parametrize("value", [False, "1", float("nan"), float("-inf"), None, []])
def test_value_that_is_no_finite_number_is_refused(value):
    _, code, message = only_fault(ROW | {"pay": value})
    assert code == ("null" if value is None else "type")
    assert message.endswith("a finite number greater than 0")


@pytest.mark.parametrize("value", [1, b"a", "a\x00", "\ud800"])
def test_value_that_is_no_storable_text_is_a_type_fault(value):
    assert only_fault(ROW | {"job": value})[1] == "type"


@pytest.mark.parametrize("value", [0, 1, "true", 1.0])
def test_value_that_is_no_boolean_is_a_type_fault(value):
    assert only_fault(ROW | {"overtime": value}) == ("/overtime", "type", "must be true or false")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"age": 15}, ("/age", "range", "must be an integer between 16 and 70")),
        ({"age": 71.0}, ("/age", "range", "must be an integer between 16 and 70")),
        ({"pay": 0}, ("/pay", "range", "must be a finite number greater than 0")),
        ({"pay": 10**400}, ("/pay", "range", "must be a number that a 64-bit float can hold")),
        ({"job": ""}, ("/job", "length", "must be text of 1 to 10 characters")),
        ({"job": "é" * 11}, ("/job", "length", "must be text of 1 to 10 characters")),
        ({"grade": "c"}, ("/grade", "category", 'must be one of "a", "b"')),
        ({"level": 2}, ("/level", "category", "must be one of 0, 1")),
        ({"start": 41}, ("/start", "rule", "start < age must hold")),
    ],
)
def test_value_outside_what_the_card_allows_says_what_to_do(changes, fault):
    assert only_fault(ROW | changes) == fault


@pytest.mark.parametrize("value", [2**53 + 1, -(2**53) - 1, 10**400, 1e300])
def test_integer_beyond_exact_floats_is_a_range_fault(value):
    code = [fault.code for fault in faults_of(ROW | {"start": value}) if fault.pointer == "/start"]
    assert code == ["range"]


def test_largest_exact_integers_are_accepted():
    validator = RowValidator(card(features=[{"name": "n", "type": "integer"}], rules=[]))
    assert validator.validate({"n": 2**53}) == {"n": 2**53}
    assert validator.validate({"n": float(-(2**53))}) == {"n": -(2**53)}


def test_unknown_category_is_accepted_unless_the_card_refuses_it():
    assert VALIDATOR.validate(ROW | {"city": "Lyon"})["city"] == "Lyon"


def test_long_list_of_categories_is_shortened_in_the_message():
    feature = {"name": "n", "type": "integer", "categories": list(range(30)), "unknown": "refuse"}
    message = only_fault({"n": 99}, RowValidator(card(features=[feature], rules=[])))[2]
    assert message.endswith("19 or one of 10 more, which the model's card lists")


def test_missing_feature_is_refused_by_a_strict_card():
    row = {name: value for name, value in ROW.items() if name not in ("age", "score")}
    assert [(fault.pointer, fault.code, fault.message) for fault in faults_of(row)] == [
        ("/age", "missing", "is missing: give an integer between 16 and 70"),
        ("/score", "missing", "is missing: give a finite number, or null"),
    ]


def test_missing_feature_becomes_null_under_a_relaxed_card():
    assert RELAXED.validate({}) == dict.fromkeys(CANONICAL)
    assert RELAXED.validate({"age": None, "stranger": 1}) == dict.fromkeys(CANONICAL)


def test_null_is_refused_for_a_required_feature_that_is_not_nullable():
    assert only_fault(ROW | {"grade": None}) == ("/grade", "null", "must not be null: give text")


def test_null_is_accepted_for_nullable_and_optional_features():
    canonical = VALIDATOR.validate(ROW | {"score": None, "level": None})
    assert canonical["score"] is None


def test_rule_with_a_null_operand_is_skipped():
    assert VALIDATOR.validate(ROW | {"score": None, "pay": 0.1})["pay"] == 0.1


def test_rule_is_checked_when_only_other_features_are_faulty():
    faults = faults_of(ROW | {"grade": "z", "score": 9999})
    assert [(fault.pointer, fault.code) for fault in faults] == [("/grade", "category"), ("/score", "rule")]


def test_rule_is_not_checked_when_one_of_its_features_is_faulty():
    assert [fault.code for fault in faults_of(ROW | {"age": 10})] == ["range"]


def test_rules_own_message_is_what_the_caller_reads():
    rule = {"expression": "start < age", "message": "the career starts before today"}
    assert only_fault(ROW | {"start": 60}, RowValidator(card(rules=[rule])))[2] == "the career starts before today"


def test_unknown_feature_is_refused_with_the_name_that_was_meant():
    fault = only_fault(ROW | {"Aage": 1})
    assert fault == ("/Aage", "unknown_feature", 'is not a feature of this model: did you mean "age"?')
    assert only_fault(ROW | {"zzzzzz": 1})[2] == "is not a feature of this model: remove it"


@pytest.mark.parametrize(
    ("key", "pointer"),
    [
        ("a/b~c", "/a~1b~0c"),
        ("x" * 500, "/" + "x" * 99),
        ("y" * 98 + "/z", "/" + "y" * 98),
        ("\ud800", "/?"),
        ("", "/"),
    ],
)
def test_pointer_of_an_unknown_feature_is_escaped_short_and_encodable(key, pointer):
    assert only_fault(ROW | {key: 1})[0] == pointer


def test_of_thousands_of_unknown_features_a_thousand_are_listed_and_all_are_counted():
    with pytest.raises(RowFaults) as caught:
        VALIDATOR.validate(ROW | {f"age{number}": 1 for number in range(5000)})
    assert len(caught.value.faults) == 1000
    assert caught.value.fault_count == 5000
    assert caught.value.detail.endswith("; and 4997 more.")
    assert sum("did you mean" in fault.message for fault in caught.value.faults) == 10


def test_rows_after_a_thousand_faults_keep_their_first_and_all_are_counted():
    bad = [{}, ROW | {"age": "x", "stranger": 1}, None] * 1000
    _, every = VALIDATOR.validate_many(bad)
    tally = Tally()
    _, row_faults = VALIDATOR.validate_many(bad, tally)
    assert tally.count == sum(map(len, every))
    assert all(row_faults)
    assert sum(map(len, row_faults)) < 1000 + len(FEATURES) + 2 * len(bad)
    assert row_faults[-2][0] == every[-2][0]
    assert row_faults[-2][1].message == "1 more faults of this row were only counted"
    lacking = row_faults[-3]
    assert lacking[0].code == "missing"
    assert lacking[1].message == f"{len(every[-3]) - 1} more faults of this row were only counted"


def test_so_many_names_are_suggested_for_all_rows_together():
    _, faults = VALIDATOR.validate_many([ROW | {f"age{number}": 1 for number in range(6)}] * 5)
    assert [len(row_faults) for row_faults in faults] == [6] * 5
    assert sum("did you mean" in fault.message for row_faults in faults for fault in row_faults) == 10


def test_key_that_is_no_string_is_an_unknown_feature():
    assert only_fault(ROW | {7: 1})[:2] == ("/7", "unknown_feature")


@pytest.mark.parametrize("row", [None, [], "row", 1, [("age", 1)]])
def test_row_that_is_no_object_is_refused(row):
    assert only_fault(row)[:2] == ("", "not_an_object")


def test_every_fault_of_a_row_is_listed_and_summed_up_in_a_sentence():
    with pytest.raises(RowFaults) as caught:
        VALIDATOR.validate({"age": 3, "start": 1, "pay": -1, "job": 5, "grade": None, "overtime": 1, "score": 1})
    assert [fault.code for fault in caught.value.faults] == ["range", "range", "type", "null", "type"]
    assert caught.value.detail == (
        "The row does not fit staff@1: age must be an integer between 16 and 70; "
        "pay must be a finite number greater than 0; job must be text of 1 to 10 characters; and 2 more."
    )


def test_sentence_of_a_broken_rule_is_the_rules_message_alone():
    with pytest.raises(RowFaults, match=r"^The row does not fit staff@1: start < age must hold\.$"):
        VALIDATOR.validate(ROW | {"start": 60})


def test_error_never_repeats_the_callers_values():
    secret = "SECRET-7421"
    with pytest.raises(RowFaults) as caught:
        VALIDATOR.validate(dict.fromkeys(ROW, secret))
    error = caught.value
    assert secret not in error.detail + str(error.faults)
    assert error.__cause__ is None
    assert error.__context__ is None


def test_many_rows_keep_their_order_and_bad_ones_do_not_spoil_good_ones():
    rows, faults = VALIDATOR.validate_many([ROW, ROW | {"age": 1}, None, ROW | {"age": 41.0}])
    assert rows == [CANONICAL, None, None, CANONICAL | {"age": 41}]
    assert [[fault.pointer for fault in each] for each in faults] == [[], ["/age"], [""], []]


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-100, 100),
    st.floats(),
    st.integers(-100, 100).map(float),
    st.text(max_size=12),
    st.sampled_from(["a", "b"]),
)
KEYS = st.sampled_from([*(feature["name"] for feature in FEATURES), "stranger"])


@given(st.sampled_from([VALIDATOR, RELAXED]), st.dictionaries(KEYS, VALUES, max_size=4), st.sets(KEYS, max_size=2))
def test_fast_path_and_explanation_agree_on_every_row(validator, changes, removed):
    row = {name: value for name, value in (ROW | changes).items() if name not in removed}
    fast = validator._fast(row)
    canonical, faults = validator._validate_slowly(row, Tally())
    if fast is not None:
        assert faults == []
        assert fast == canonical
        assert [type(value) for value in fast.values()] == [type(value) for value in canonical.values()]
    elif not faults:
        assert validator.validate(row) == canonical
        assert any(type(value) is float and value.is_integer() for value in row.values())


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_accepted_row_is_canonical_valid_again_and_storable(changes):
    (canonical,), (faults,) = VALIDATOR.validate_many([ROW | changes])
    if canonical is None:
        assert faults
        return
    assert list(canonical) == [feature["name"] for feature in FEATURES]
    assert VALIDATOR.validate(canonical) == canonical
    json.dumps(canonical, allow_nan=False, ensure_ascii=False).encode()


# ── what existing clients send ───────────────────────────────────────────────────────────────────────────────────


def people(**words):
    features = [
        Feature(name="age", type="integer", min=16, max=70, default=30, message={"range": "Age must be from 16 to 70"}),
        Feature(name="raise", type="number", percent="points", max=50),
        Feature(name="share", type="number", percent="fraction", default=0.5),
        Feature(name="overtime", type="boolean", message="Overtime: yes or no, please."),
        Feature(name="post", type="string", default="clerk"),
    ]
    return RowValidator(
        Card(name="people", version=1, task="binary", sha256=UNHASHED, labels={}, features=features, **words)
    )


def test_absent_features_take_their_defaults():
    canonical = people().validate({"raise": 1.5, "overtime": True})
    assert canonical == {"age": 30, "raise": 1.5, "share": 0.5, "overtime": True, "post": "clerk"}
    with pytest.raises(RowFaults, match="post must not be null"):
        people().validate({"raise": 1.5, "overtime": True, "post": None})
    # The slow path, which a wrong feature takes the row through, gives the same.
    with pytest.raises(RowFaults) as refusal:
        people().validate({"raise": "much", "overtime": True})
    assert [fault.pointer for fault in refusal.value.faults] == ["/raise"]


def test_default_is_an_integer_where_it_is_written_as_a_float():
    feature = Feature(name="n", type="integer", default=3.0)
    card = Card(name="n", version=1, task="regression", sha256=UNHASHED, features=[feature])
    assert type(RowValidator(card).validate({})["n"]) is int


@pytest.mark.parametrize("words", [{"default": 12}, {"default": "old"}, {"percent": "points", "type": "string"}])
def test_default_or_percent_that_no_row_could_have_is_refused(words):
    with pytest.raises(ValidationError, match="age"):
        Feature(**{"name": "age", "type": "integer", "min": 16} | words)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"age": "35"}, {"age": 35}),
        ({"age": " 35 "}, {"age": 35}),
        ({"age": "35.0"}, {"age": 35}),
        ({"raise": "1e1"}, {"raise": 10.0}),
        ({"raise": "-1.5"}, {"raise": -1.5}),
        ({"overtime": "Yes"}, {"overtime": True}),
        ({"overtime": "non"}, {"overtime": False}),
        ({"overtime": "0"}, {"overtime": False}),
        ({"post": "35"}, {"post": "35"}),
    ],
)
def test_text_stands_for_a_value_only_where_the_card_reads_it(row, expected):
    full = {"raise": 1.5, "overtime": True} | row
    validated = people(text="read").validate(full)
    [name] = expected
    assert (validated[name], type(validated[name])) == (expected[name], type(expected[name]))
    if name != "post":
        with pytest.raises(RowFaults):
            people().validate(full)


@pytest.mark.parametrize(
    "row",
    [
        {"age": ""},
        {"age": "35.5"},
        {"age": "1_000"},
        {"age": "\uff13\uff15"},
        {"raise": "inf"},
        {"raise": "nan"},
        {"raise": "0x10"},
        {"raise": "1,5"},
        {"age": "9" * 5000},
        {"overtime": "maybe"},
        {"overtime": "2"},
    ],
)
def test_text_that_stands_for_no_value_is_refused_also_where_text_is_read(row):
    with pytest.raises(RowFaults) as refusal:
        people(text="read").validate({"raise": 1.5, "overtime": True} | row)
    [fault] = refusal.value.faults
    assert fault.pointer == f"/{next(iter(row))}"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("raise", "15 %", 15.0),
        ("raise", "15%", 15.0),
        ("raise", "12,5\u00a0%", 12.5),
        ("share", "15 %", 0.15),
        ("share", "12.5%", 0.125),
    ],
)
def test_percentages_are_taken_as_the_feature_counts_them(name, text, expected):
    for validator in (people(), people(text="read")):
        row = {"raise": 1.5, "overtime": True, name: text}
        assert validator.validate(row)[name] == expected


def test_percentages_obey_the_limits_and_are_refused_elsewhere():
    for row in ({"raise": "60 %"}, {"raise": "%"}, {"raise": "1 500 %"}, {"raise": "15"}, {"age": "20 %"}):
        with pytest.raises(RowFaults):
            people().validate({"raise": 1.5, "overtime": True} | row)


def test_messages_of_the_card_are_told_as_they_are():
    with pytest.raises(RowFaults) as refusal:
        people().validate({"age": 12, "raise": 80, "overtime": 3})
    assert refusal.value.detail == (
        "The row does not fit people@1: Age must be from 16 to 70; raise must be a finite number of at most 50; "
        "Overtime: yes or no, please."
    )
    assert [(fault.pointer, fault.code) for fault in refusal.value.faults] == [
        ("/age", "range"),
        ("/raise", "range"),
        ("/overtime", "type"),
    ]
    with pytest.raises(RowFaults, match="age must be an integer between 16 and 70"):  # it has a message for its range
        people().validate({"age": "old", "raise": 1, "overtime": True})
    with pytest.raises(RowFaults, match=r"Overtime: yes or no, please\.$"):
        people().validate({"raise": 1})


def test_faults_are_written_alike_whoever_words_them():
    [fault] = people().validate_many([{"age": 12, "raise": 1, "overtime": True}])[1][0]
    assert orjson.loads(orjson.dumps([fault.under("/rows/0")])) == [
        {"pointer": "/rows/0/age", "code": "range", "message": "Age must be from 16 to 70"}
    ]
    assert fault.under("/rows/0").clause() == "Age must be from 16 to 70"

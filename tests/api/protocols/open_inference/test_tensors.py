"""Tensors of the Open Inference Protocol: their elements, the rows that they mean, and what is wrong with them."""

import math
import struct
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.jobs.json_body import parse_json
from api.jobs.serializers import score_body
from api.models.catalog import Version
from api.protocols.open_inference.body import TensorBody, count_keys
from api.protocols.open_inference.codec import DATATYPES, from_bytes, from_json, to_bytes
from api.protocols.open_inference.inference import (
    Inference,
    inference_answer,
    model_metadata,
    output_datatypes,
    read_inference,
)
from shared.cards.card import Card
from shared.cards.validator import RowValidator
from shared.errors import MalformedBody, RowFaults, TooLarge
from shared.faults import Fault
from shared.jobs.queries.jobs import StoredOutput

NUMPY = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
FEATURES: list[dict[str, Any]] = [
    {"name": "age", "type": "integer", "min": 16, "max": 70},
    {"name": "income", "type": "number", "nullable": True},
    {"name": "member", "type": "boolean"},
    {"name": "city", "type": "string", "nullable": True},
]
NUMBERS = [*FEATURES[:3], {"name": "rate", "type": "number", "max": 1.0}]
AGE = {"name": "age", "shape": [2], "datatype": "INT64", "data": [30, 40]}
INCOME = {"name": "income", "shape": [2], "datatype": "FP64", "data": [1.5, None]}
MEMBER = {"name": "member", "shape": [2], "datatype": "BOOL", "data": [True, False]}
CITY = {"name": "city", "shape": [2], "datatype": "BYTES", "data": ["Åre", None]}
ALL = [AGE, INCOME, MEMBER, CITY]
ROWS = [
    {"age": 30, "income": 1.5, "member": True, "city": "Åre"},
    {"age": 40, "income": None, "member": False, "city": None},
]


def version_of(features: list[dict[str, Any]] = FEATURES, **more: Any) -> Version:
    fields = {"name": "m", "version": 1, "task": "binary", "sha256": "0" * 64, "labels": {"0": "no", "1": "yes"}} | more
    card = Card.model_validate(fields | {"features": features})
    return Version(1, card.sha256, card, RowValidator(card), {"answer": "predict_proba"}, datetime.now(UTC))


def ask(inputs: Any, version: Version | None = None, *, buffers: bytes = b"", **more: Any) -> Inference:
    body = TensorBody({"inputs": inputs, **more}, memoryview(buffers), b"")
    return read_inference(version or version_of(), body, max_rows=1000)


def refused(inputs: Any, version: Version | None = None, *, buffers: bytes = b"", **more: Any) -> RowFaults:
    with pytest.raises(RowFaults) as caught:
        ask(inputs, version, buffers=buffers, **more)
    assert caught.value.detail.endswith("?" if "did you mean" in caught.value.detail.rpartition("; ")[2] else ".")
    return caught.value


def one(tensors: list[dict[str, Any]], row: int = 0) -> list[dict[str, Any]]:
    """Return the same tensors with one row only."""
    return [{**tensor, "shape": [1], "data": tensor["data"][row : row + 1]} for tensor in tensors]


def matrix(data: Any, shape: list[int], datatype: str = "FP64", **more: Any) -> list[dict[str, Any]]:
    return [{"name": "input-1", "shape": shape, "datatype": datatype, "data": data, **more}]


# ── elements ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", NUMPY)
def test_elements_in_bytes_are_what_numpy_writes_and_reads(name):
    array = np.array([0, 1, 1, 0, 1]).astype(NUMPY[name])
    values, faults = from_bytes(DATATYPES[name], memoryview(array.tobytes()), 5)
    assert faults == []
    assert list(values) == array.tolist()
    assert to_bytes(DATATYPES[name], values) == array.tobytes()


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_texts_come_back_from_bytes_as_they_were(texts):
    data = to_bytes(DATATYPES["BYTES"], texts)
    assert from_bytes(DATATYPES["BYTES"], memoryview(data), len(texts)) == (texts, [])


@given(st.lists(st.floats(allow_infinity=False)))
def test_not_a_number_in_bytes_is_null_and_every_other_number_stays(numbers):
    values, faults = from_bytes(DATATYPES["FP64"], memoryview(struct.pack(f"<{len(numbers)}d", *numbers)), len(numbers))
    assert faults == []
    assert list(values) == [None if math.isnan(number) else number for number in numbers]


@given(st.lists(st.none() | st.floats(-1e30, 1e30) | st.integers(-(2**60), 2**60)))
def test_numbers_in_json_are_rounded_to_fp32_as_numpy_rounds_them(numbers):
    values, faults = from_json(DATATYPES["FP32"], numbers)
    assert faults == []
    assert list(values) == [None if number is None else float(np.float32(number)) for number in numbers]


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("INT64", [1.0, 2, None], [1, 2, None]),  # clients that keep every number as a float
        ("BOOL", [1.0, 0.0, True, None], [True, False, True, None]),
        ("FP64", [1, 2.5], [1, 2.5]),
        ("UINT8", [0, 255], [0, 255]),
        ("INT8", [-128, 127], [-128, 127]),
        ("UINT64", [2**64 - 1], [2**64 - 1]),
        ("FP16", [65504, None], [65504.0, None]),
    ],
)
def test_elements_in_json_are_read_as_their_datatype_means_them(name, data, expected):
    assert from_json(DATATYPES[name], data) == (expected, []) or tuple(expected) == from_json(DATATYPES[name], data)[0]


@pytest.mark.parametrize(
    ("name", "data", "places"),
    [
        ("INT64", [1, 1.5, "2", True], [1, 2, 3]),
        ("INT8", [127, 128, -129, None], [1, 2]),
        ("UINT8", [-1, 0, 256, 1e300], [0, 2, 3]),
        ("INT64", [2**63], [0]),
        ("BOOL", [2, "true", None], [0, 1]),
        ("FP64", ["1", True, [1.0], {}], [0, 1, 2, 3]),
        ("FP32", [1e39, 1.0, -1e39], [0, 2]),
        ("FP16", [65504.0, 70000], [1]),
        ("BYTES", [1.0, "a", ["b"]], [0, 2]),
    ],
)
def test_elements_that_their_datatype_cannot_hold_are_named_by_their_place(name, data, places):
    faults = from_json(DATATYPES[name], data)[1]
    assert sorted(place for place, _ in faults) == places
    assert all(message.startswith("must be ") for _, message in faults)


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_tensors_by_name_are_rows_whatever_their_order():
    assert ask(ALL[::-1]).rows == ROWS


@pytest.mark.parametrize("row", [0, 1])
def test_one_row_is_read_the_same_alone_and_among_others(row):
    assert ask(one(ALL, row)).rows == [ROWS[row]]
    assert ask([{**tensor, "shape": [1, 1]} for tensor in one(ALL, row)]).rows == [ROWS[row]]


def test_columns_may_be_flat_or_nested():
    nested = [{**tensor, "shape": [2, 1], "data": [[value] for value in tensor["data"]]} for tensor in ALL]
    assert ask(nested).rows == ask([{**tensor, "shape": [2, 1]} for tensor in ALL]).rows == ROWS


@pytest.mark.parametrize("data", [[30, 1.5, 1, 0.5, 40, None, 0, 1.0], [[30, 1.5, 1, 0.5], [40, None, 0, 1.0]]])
def test_matrix_is_read_row_by_row_in_the_order_of_the_card(data):
    rows = ask(matrix(data, [2, 4]), version_of(NUMBERS)).rows
    assert [list(row.values()) for row in rows] == [[30, 1.5, True, 0.5], [40, None, False, 1.0]]
    assert [type(value) for value in rows[0].values()] == [int, float, bool, float]


def test_matrix_in_bytes_is_read_as_the_same_matrix_in_json():
    array = np.array([[30, 1.5, 1, 0.5], [40, np.nan, 0, 1.0]])
    tensor = matrix(None, [2, 4], parameters={"binary_data_size": 64})[0]
    del tensor["data"]
    rows = ask([tensor], version_of(NUMBERS), buffers=array.tobytes()).rows
    assert rows == ask(matrix([30, 1.5, 1, 0.5, 40, None, 0, 1.0], [2, 4]), version_of(NUMBERS)).rows


def test_matrix_of_texts_is_read_where_every_feature_is_text():
    version = version_of([{"name": "a", "type": "string"}, {"name": "b", "type": "string"}])
    assert ask(matrix(["x", "y"], [1, 2], "BYTES"), version).rows == [{"a": "x", "b": "y"}]


def test_lone_tensor_of_the_only_feature_is_read_by_its_name():
    version = version_of([FEATURES[0]])
    assert ask([AGE], version).rows == [{"age": 30}, {"age": 40}]
    assert ask(matrix([30, 40], [2, 1]), version).rows == [{"age": 30}, {"age": 40}]


def test_inputs_may_lack_what_the_card_lets_be_absent():
    version = version_of([FEATURES[0], FEATURES[1] | {"required": False}])
    assert ask([AGE], version).rows == [{"age": 30, "income": None}, {"age": 40, "income": None}]


def test_unknown_inputs_are_ignored_where_the_card_says_so():
    assert ask([*ALL, {**AGE, "name": "other"}], version_of(extra="ignore")).rows == ROWS


def test_texts_of_pandas_in_json_and_base64_are_decoded():
    odd = [
        {**CITY, "parameters": {"content_type": "pd_json"}, "data": ['"Åre"', "null"]},
        {**INCOME, "datatype": "BYTES", "parameters": {"content_type": "pd_json"}, "data": ["1.5", "null"]},
    ]
    assert ask([AGE, MEMBER, *odd]).rows == ROWS
    coded = {**CITY, "parameters": {"content_type": "base64"}, "data": ["w4VyZQ==", None]}
    assert ask([AGE, INCOME, MEMBER, coded]).rows == ROWS


# ── what is wrong ────────────────────────────────────────────────────────────────────────────────────────────────


def typed(content_type: str, data: list[Any]) -> dict[str, Any]:
    return {"parameters": {"content_type": content_type}, "data": data}


def without(tensor: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in tensor.items() if key not in keys}


@pytest.mark.parametrize(
    ("inputs", "pointer", "sentence"),
    [
        (None, "/inputs", "a list of at least one tensor"),
        ([], "/inputs", "a list of at least one tensor"),
        ({"age": 1}, "/inputs", "a list of at least one tensor"),
        ([7], "/inputs/0", "inputs[0] must be an object with name"),
        ([without(AGE, "name")], "/inputs/0/name", "inputs[0] must have a name"),
        ([AGE | {"datatype": "FP99"}], "/inputs/0/datatype", "BOOL, UINT8"),
        ([AGE | {"datatype": ["INT64"]}], "/inputs/0/datatype", "BOOL, UINT8"),
        ([without(AGE, "shape")], "/inputs/0/shape", "one or two whole numbers"),
        ([AGE | {"shape": [2, 1, 1]}], "/inputs/0/shape", "one or two whole numbers"),
        ([AGE | {"shape": [-1]}], "/inputs/0/shape", "one or two whole numbers"),
        ([AGE | {"shape": [2.0]}], "/inputs/0/shape", "one or two whole numbers"),
        ([AGE | {"shape": [True], "data": [30]}], "/inputs/0/shape", "one or two whole numbers"),
        ([AGE | {"shape": [2**40, 2**40]}], "/inputs/0/shape", "one or two whole numbers"),
        ([AGE | {"shape": [3]}], "/inputs/0/data", "means 3 elements, but data has 2"),
        ([AGE | {"data": 30}], "/inputs/0/data", "a list of 2 elements"),
        ([without(AGE, "data")], "/inputs/0/data", "a list of 2 elements"),
        ([AGE | {"shape": [2, 2], "data": [[1], [2, 3, 4]]}], "/inputs/0/data", "nested as its shape"),
        ([AGE | {"shape": [2, 2], "data": [[1, 2, 3, 4]]}], "/inputs/0/data", "nested as [1, 4], but its"),
        ([*ALL, AGE], "/inputs/4/name", "two inputs have the name `age`"),
        ([AGE | {"shape": [3], "data": [1, 2, 3]}, *ALL[1:]], "/inputs", "`age` has the shape [3], `income` has [2]"),
        (ALL[1:], "/inputs", "age INT64 is missing among the inputs: one for each of the 4 features"),
        ([CITY], "/inputs", "age INT64, income FP64, member BOOL are missing"),
        ([*ALL, AGE | {"name": "citty"}], "/inputs/4/name", 'is not an input of this model: did you mean "city"?'),
        ([AGE | {"shape": [2, 1]}, INCOME | {"shape": [2, 2], "data": [1, 2, 3, 4]}, MEMBER, CITY], "/inputs/1/shape",
         "`income` must have the shape [n] or [n, 1], not [2, 2]"),
        ([AGE | {"datatype": "BYTES", "data": ["1", "2"]}, *ALL[1:]], "/inputs/0/datatype", "INT64, not BYTES"),
        ([*ALL[:3], CITY | {"datatype": "FP64", "data": [1, 2]}], "/inputs/3/datatype", "datatype BYTES, not FP64"),
        ([AGE | {"datatype": "BOOL", "data": [True, True]}, *ALL[1:]], "/inputs/0/datatype", "INT64, not BOOL"),
        ([AGE | {"data": [30, 400]}, *ALL[1:]], "/inputs/0/data/1", "`age`[1] must be an integer between 16 and 70"),
        ([AGE | {"data": [30, None]}, *ALL[1:]], "/inputs/0/data/1", "`age`[1] must not be null"),
        ([AGE | {"data": [30, 1.5]}, *ALL[1:]], "/inputs/0/data/1", "`age`[1] must be an integer that INT64 can hold"),
        ([AGE | {"shape": [2, 1], "data": [30, 5]}, *ALL[1:]], "/inputs/0/data/1", "`age`[1, 0] must be an integer"),
        ([AGE, INCOME, MEMBER | {"datatype": "INT8", "data": [1, 2]}, CITY], "/inputs/2/data/1", "true or false"),
        ([AGE, INCOME, MEMBER, CITY | {"data": ["a", "b\x00"]}], "/inputs/3/data/1", "`city`[1] must be text"),
        ([{**tensor, "shape": [0], "data": []} for tensor in ALL], "/inputs", "at least one row"),
        (matrix([0.0] * 8, [2, 4]), "/inputs/0", "one matrix of FP64 cannot hold every feature"),
        ([AGE | {"parameters": 5}], "/inputs/0/parameters", "inputs[0]: parameters must be an object"),
        ([AGE | {"parameters": {"shared_memory_region": "x"}}], "/inputs/0/parameters/shared_memory_region", "shared"),
        ([AGE | {"parameters": {"content_type": "hex"}}], "/inputs/0/parameters/content_type", "np, pd, pd_json"),
        ([*ALL[:3], CITY | typed("base64", ["?", None])], "/inputs/3/data/0", "base64"),
        ([*ALL[:3], CITY | typed("pd_json", ["[1]", "{"])], "/inputs/3/data/0", "JSON"),
    ],
)  # fmt: skip
def test_inputs_that_do_not_fit_are_refused_with_the_expected_against_the_given(inputs, pointer, sentence):
    error = refused(inputs)
    assert error.faults[-1 if pointer.endswith("/name") else 0].pointer == pointer
    assert sentence in error.detail


def test_matrix_for_a_model_with_texts_is_answered_with_the_names_that_are_needed():
    message = refused(matrix([0.0] * 4, [1, 4])).detail
    assert "by its name, with shape [n] or [n, 1]: age INT64, income FP64, member BOOL, city BYTES" in message
    assert "Given was `input-1` [1, 4]" in message


def test_matrix_of_another_width_is_answered_with_the_features_in_their_order():
    message = refused(matrix([0.0] * 3, [1, 3]), version_of(NUMBERS)).detail
    assert "a matrix [n, 4] with the features in this order: age INT64, income FP64, member BOOL, rate FP64" in message
    assert "Given was the shape [1, 3]" in message


def test_faults_of_a_matrix_name_the_element_and_its_feature():
    error = refused(matrix([30, 1.5, 1, 0.5, 40, 2.5, 0, 7.0], [2, 4]), version_of(NUMBERS))
    assert error.faults == [
        Fault("/inputs/0/data/7", "range", "`input-1`[1, 3] (rate) must be a finite number of at most 1")
    ]


def test_broken_rule_is_told_with_its_row():
    version = version_of(rules=[{"expression": "age > 35", "message": "too young"}])
    error = refused(ALL, version)
    assert error.faults == [Fault("/inputs/0/data/0", "rule", "row 0: too young")]


def test_every_fault_is_listed_and_the_sentence_has_the_first_three():
    error = refused([AGE | {"data": [1, 2]}, INCOME, MEMBER, CITY | {"data": ["\x00", "\x00"]}])
    assert len(error.faults) == 4
    assert error.detail.endswith("; and 1 more.")


@pytest.mark.parametrize("size", [-1, "16", True, 1.5])
def test_size_in_bytes_must_be_a_number_of_bytes(size):
    tensor = without(AGE, "data") | {"parameters": {"binary_data_size": size}}
    assert "must be a number of bytes" in refused([tensor, *ALL[1:]]).detail


@pytest.mark.parametrize(
    ("tensor", "size", "buffers", "sentence"),
    [
        (AGE, 8, bytes(8), "2 elements of INT64 are 16 bytes, but 8 were given"),
        (AGE, 16, bytes(10), "2 elements of INT64 are 16 bytes, but 10 were given"),
        (AGE, 16, bytes(20), "the inputs take 16 bytes after the JSON, but 20 follow it"),
        (CITY, 9, b"\x01\x00\x00\x00a\x02\x00\x00\x00", "2 elements of BYTES, each with its length"),
        (CITY, 5, b"\x01\x00\x00\x00a", "2 elements of BYTES, each with its length"),
        (CITY, 11, b"\x01\x00\x00\x00a\x01\x00\x00\x00bc", "2 elements of BYTES, each with its length"),
        (CITY, 10, b"\x01\x00\x00\x00a\x01\x00\x00\x00\xff", "`city`[1] must be text in UTF-8"),
        (CITY, 4, b"\xff\xff\xff\xff", "2 elements of BYTES, each with its length"),
    ],
)
def test_bytes_that_do_not_fit_their_tensor_are_refused(tensor, size, buffers, sentence):
    cut = without(tensor, "data") | {"parameters": {"binary_data_size": size}}
    others = [other for other in ALL if other["name"] != tensor["name"]]
    assert sentence in refused([cut, *others], buffers=buffers).detail


def test_bytes_after_json_that_no_input_takes_are_refused():
    assert "the inputs take 0 bytes after the JSON, but 3 follow it" in refused(one(ALL), buffers=b"abc").detail


def test_data_in_both_forms_is_refused():
    assert "data must then be left out" in refused([AGE | {"parameters": {"binary_data_size": 16}}, *ALL[1:]]).detail


def test_too_many_rows_are_refused_before_they_are_looked_at():
    with pytest.raises(TooLarge, match="at most 1000 rows"):
        ask([{**AGE, "shape": [1001], "data": [0] * 1001}])


def test_values_are_never_repeated():
    secret = "hunter2"
    for inputs in (
        [AGE | {"datatype": secret}],
        [AGE | {"data": [secret, secret]}, *ALL[1:]],
        [AGE, INCOME, MEMBER, CITY | {"datatype": "FP64", "data": [secret, secret]}],
        [*ALL[:3], CITY | {"parameters": {"content_type": secret}}],
        [*ALL[:3], CITY | {"parameters": {"content_type": "pd_json"}, "data": [secret, secret]}],
    ):
        error = refused(inputs)
        assert secret not in error.detail + str(error.faults)


def test_quick_way_and_long_way_agree_on_every_single_row():
    """What plainly fits is read by a shortcut; a parameter that says nothing sends the same row the long way."""
    kinds = {"age": "INT64", "income": "FP64", "member": "BOOL", "city": "BYTES"}
    for name in kinds:
        for value in (None, True, 1, 0, 17, 17.0, 17.5, 2**63, -(2**70), 1e300, "x", "", [17], {}):
            for datatype in kinds.values():
                row = [
                    {**tensor, **({"data": [value], "datatype": datatype} if tensor["name"] == name else {})}
                    for tensor in one(ALL)
                ]
                quick, long = (outcome([{**tensor, **more} for tensor in row]) for more in ({}, {"parameters": {}}))
                assert quick == long, (name, value, datatype)


def outcome(inputs: list[dict[str, Any]]) -> Any:
    try:
        return [(key, type(value), value) for row in ask(inputs).rows for key, value in row.items()]
    except RowFaults as error:
        return error.faults


@pytest.mark.parametrize(
    "tensor",
    [
        {"name": "x", "shape": [1], "datatype": "FP64", "data": [1.5]},
        {"name": "", "shape": [1], "datatype": "FP64", "data": [1.5]},
        {"name": "city", "shape": [1], "datatype": "BYTES", "data": "x"},
        {"name": "city", "shape": [1], "datatype": "BYTES", "data": {"x": 1}},
    ],
)
def test_relaxed_card_does_not_make_a_row_of_nulls_from_a_tensor_that_it_cannot_read(tensor):
    assert refused([tensor], version_of(missing="null", extra="ignore")).faults


def test_names_are_suggested_for_ten_unknown_inputs():
    strangers = [{"name": f"age{number}", "shape": [1], "datatype": "INT64", "data": [1]} for number in range(50)]
    faults = [fault for fault in refused([*one(ALL), *strangers]).faults if fault.code == "unknown_feature"]
    assert len(faults) == 50
    assert sum('did you mean "age"?' in fault.message for fault in faults) == 10


def test_far_more_inputs_than_features_are_refused_in_one_sentence():
    strangers = [{"name": f"age{number}", "shape": [1], "datatype": "INT64", "data": [1]} for number in range(101)]
    error = refused([*one(ALL), *strangers])
    assert error.faults == [
        Fault("/inputs", "length", "105 inputs were given, and the model has 4 features: one for each")
    ]
    assert ask([*one(ALL), *strangers], version_of(extra="ignore")).rows == ROWS[:1]


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("INT64", ["x"] * 300),
        ("INT8", [1000] * 300),
        ("FP16", [1e300] * 300),
        ("BYTES", [1] * 300),
    ],
)
def test_hundred_faults_of_elements_are_told(datatype, data):
    tensor = {"name": "age", "shape": [300], "datatype": datatype, "data": data}
    error = refused([tensor, tensor | {"name": "income"}])
    assert [fault.pointer for fault in error.faults[:100]] == [f"/inputs/0/data/{place}" for place in range(100)]
    assert [fault.message for fault in error.faults[100:]] == ["only the first 100 faults of a request are listed"]
    assert error.detail.endswith("; and at least 98 more.")


@pytest.mark.parametrize("content_type", [None, "base64", "pd_json"])
def test_hundred_faults_of_texts_in_bytes_are_told(content_type):
    text = b"\xff" if content_type is None else b"{"
    parameters = {"binary_data_size": 1500, "content_type": content_type}
    tensor = {"name": "city", "shape": [300], "datatype": "BYTES", "parameters": parameters}
    assert len(refused([tensor], buffers=(b"\x01\0\0\0" + text) * 300).faults) == 101


@pytest.mark.parametrize("part", ["inputs", "outputs"])
def test_hundred_faults_of_parts_that_are_no_objects_are_told(part):
    error = refused(**({"inputs": one(ALL)} | {part: [1] * 1000}), version=version_of(extra="ignore"))
    assert len(error.faults) == 101


# ── the request around them ──────────────────────────────────────────────────────────────────────────────────────


def test_all_outputs_are_meant_when_none_is_named():
    for outputs in (None, []):
        assert [output.name for output in ask(ALL, outputs=outputs).outputs] == ["predict", "predict_proba", "label"]


def test_only_predict_is_meant_by_who_speaks_as_mlserver_and_names_none():
    assert [output.name for output in ask(ALL, parameters={"content_type": "pd"}).outputs] == ["predict"]
    typed = [*ALL[:3], CITY | {"parameters": {"content_type": "str"}}]
    assert [output.name for output in ask(typed).outputs] == ["predict"]


@pytest.mark.parametrize(
    ("outputs", "sentence"),
    [
        ("predict", '"outputs" must be a list'),
        (["predict"], "outputs[0] must be an object with a name"),
        ([{"name": 5}], "outputs[0] must be an object with a name"),
        ([{"name": "transform"}], "`transform` is not an output of this model: it gives predict, predict_proba, label"),
        ([{"name": "label"}, {"name": "label"}], "the output `label` is requested twice"),
        ([{"name": "label", "parameters": {"binary_data": 1}}], "outputs[0]: binary_data must be true or false"),
        ([{"name": "label", "parameters": {"classification": 2}}], "the classification extension is not supported"),
        ([{"name": "label", "parameters": {"shared_memory_region": "r"}}], "shared memory is not read here"),
    ],
)
def test_outputs_that_are_not_given_are_refused_with_those_that_are(outputs, sentence):
    assert sentence in refused(ALL, outputs=outputs).detail


def test_id_must_be_text():
    assert refused(ALL, id=7).faults == [Fault("/id", "type", "the id must be text")]


@pytest.mark.parametrize("value", [1, "true", [True], {}])
def test_binary_data_output_must_be_true_or_false(value):
    assert "binary_data_output must be true or false" in refused(ALL, parameters={"binary_data_output": value}).detail


def test_parameters_that_mean_nothing_here_are_let_through():
    parameters = {"sequence_id": 42, "priority": 1, "timeout": 10, "custom": "x", "headers": None}
    assert ask(ALL, parameters=parameters, unknown={"a": 1}).rows == ROWS


@pytest.mark.parametrize("fields", [[], 5, None, "inputs"])
def test_body_that_is_no_object_is_refused(fields):
    with pytest.raises(RowFaults, match='must be an object with "inputs"'):
        read_inference(version_of(), TensorBody(fields, memoryview(b""), b""), max_rows=10)


def test_key_that_is_written_twice_is_found_in_every_object_of_a_request():
    body = orjson.dumps(
        {"id": "a:b", "inputs": ALL, "outputs": [{"name": "label", "parameters": {"binary_data": True}}]}
    )
    assert parse_json(body, count_keys=count_keys)["id"] == "a:b"
    for key in (b'"id"', b'"name"', b'"binary_data"', b'"datatype"'):
        twice = body.replace(key + b":", key + b":null," + key + b":", 1)
        with pytest.raises(MalformedBody, match="same key twice"):
            parse_json(twice, count_keys=count_keys)


SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))
SIZES = st.integers(-1, 3) | st.just(2**31)
PARAMETERS = st.fixed_dictionaries(
    {},
    optional={
        "binary_data_size": SIZES | JSON,
        "content_type": st.sampled_from(["np", "str", "pd_json", "base64"]) | JSON,
    },
)
TENSORS = st.fixed_dictionaries(
    {"name": st.sampled_from(["age", "income", "member", "city", "x"]), "datatype": st.sampled_from(list(DATATYPES))},
    optional={
        "shape": st.lists(SIZES, max_size=3) | JSON,
        "data": st.lists(SCALARS, max_size=3) | JSON,
        "parameters": PARAMETERS | JSON,
    },
)


@given(st.lists(TENSORS | JSON, max_size=5) | JSON, JSON, st.binary(max_size=40), st.booleans())
def test_whatever_comes_is_read_or_refused_in_words(inputs, rest, buffers, plain):
    fields = {"inputs": inputs, "outputs": rest, "parameters": rest, "id": rest}
    version = version_of(NUMBERS if plain else FEATURES, missing="null")
    try:
        body = TensorBody(fields, memoryview(buffers), b"")
        rows = read_inference(version, body, max_rows=1000).rows
    except (RowFaults, TooLarge) as error:
        assert error.detail.endswith(".")  # noqa: PT017 - both ways are right
    else:
        assert rows


# ── outputs ──────────────────────────────────────────────────────────────────────────────────────────────────────

SCORED = [StoredOutput(1.0, "yes", 0.75, None, 0.5), StoredOutput(0.0, "no", 0.25, None, 0.5)]


def answered(version: Version, scored: list[StoredOutput], **more: Any) -> dict[str, Any]:
    body, head = inference_answer(version, ask(ALL, version, **more), scored, job_id="job")
    assert head is None
    answer: dict[str, Any] = orjson.loads(body)
    return answer


def test_outputs_of_a_binary_model_are_class_both_probabilities_and_label():
    assert answered(version_of(), SCORED, id="mine") == {
        "model_name": "m",
        "model_version": "1",
        "id": "mine",
        "parameters": {"job_id": "job"},
        "outputs": [
            {"name": "predict", "datatype": "INT64", "shape": [2], "data": [1, 0]},
            {"name": "predict_proba", "datatype": "FP64", "shape": [2, 2], "data": [0.25, 0.75, 0.75, 0.25]},
            {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["yes", "no"]},
        ],
    }


@pytest.mark.parametrize(
    ("classes", "datatype", "data"),
    [
        (["0", "1"], "INT64", [1, 0]),
        (["-1", "3"], "INT64", [3, -1]),
        (["False", "True"], "BOOL", [True, False]),
        (["0.5", "1.0"], "FP64", [1.0, 0.5]),
        (["no", "yes"], "BYTES", ["yes", "no"]),
        (["0_1", "1"], "BYTES", ["1", "0_1"]),
    ],
)
def test_predict_gives_the_classes_of_the_estimator(classes, datatype, data):
    version = version_of(labels={name: f"label {name}" for name in classes})
    output = answered(version, SCORED, outputs=[{"name": "predict"}])["outputs"][0]
    assert (output["datatype"], output["data"]) == (datatype, data)


@pytest.mark.parametrize("classes", [["0.5", "1.0", "2.5"], ["1", "2", "3"], ["01", "02", "03"], ["1", "2", "other"]])
def test_classes_of_an_answer_are_those_of_predict(classes):
    version = version_of(task="multiclass", labels={name: f"label {name}" for name in classes})
    scored = [StoredOutput(1.0, f"label {classes[1]}", 0.5, [0.2, 0.5, 0.3], None)]
    [predicted] = answered(version, scored, outputs=[{"name": "predict"}])["outputs"][0]["data"]
    prediction = score_body(version.card, scored[0])["prediction"]
    assert (type(prediction), prediction) == (type(predicted), predicted)


def test_outputs_of_many_classes_hold_the_probability_of_each():
    version = version_of(task="multiclass", labels={"a": "A", "b": "B", "c": "C"})
    scored = [StoredOutput(2.0, "C", 0.5, [0.2, 0.3, 0.5], None), StoredOutput(0.0, "A", 0.9, [0.9, 0.1, 0.0], None)]
    outputs = {output["name"]: output for output in answered(version, scored)["outputs"]}
    assert outputs["predict"]["data"] == ["c", "a"]
    assert outputs["predict_proba"]["shape"] == [2, 3]
    assert outputs["predict_proba"]["data"] == [0.2, 0.3, 0.5, 0.9, 0.1, 0.0]


def test_regression_gives_its_number_alone():
    version = version_of(task="regression", labels={})
    scored = [StoredOutput(1.5, None, None, None, None), StoredOutput(2.5, None, None, None, None)]
    assert answered(version, scored)["outputs"] == [
        {"name": "predict", "datatype": "FP64", "shape": [2], "data": [1.5, 2.5]}
    ]


def test_model_without_probabilities_does_not_offer_them():
    version = version_of()
    version.scorer["answer"] = "decision_function"
    assert list(output_datatypes(version)) == ["predict", "label"]
    version.scorer.pop("answer")  # registered before the report told
    scored = [StoredOutput(1.0, "yes", None, None, 0.5), StoredOutput(0.0, "no", None, None, 0.5)]
    assert [output["name"] for output in answered(version, scored)["outputs"]] == ["predict", "label"]


def test_outputs_in_bytes_follow_the_json_in_their_order():
    requested = [
        {"name": "label"},
        {"name": "predict", "parameters": {"binary_data": False}},
        {"name": "predict_proba"},
    ]
    inference = ask(ALL, outputs=requested, parameters={"binary_data_output": True})
    body, head = inference_answer(version_of(), inference, SCORED, job_id="job")
    assert head is not None
    outputs = orjson.loads(body[:head])["outputs"]
    assert [output.get("parameters") for output in outputs] == [
        {"binary_data_size": 13},
        None,
        {"binary_data_size": 32},
    ]
    assert ["data" in output for output in outputs] == [False, True, False]
    assert body[head:] == b"\x03\0\0\0yes\x02\0\0\0no" + np.array([0.25, 0.75, 0.75, 0.25]).tobytes()


def test_answer_to_who_speaks_as_mlserver_has_the_shapes_of_its_codecs():
    requested = [{"name": "predict"}, {"name": "predict_proba"}, {"name": "label"}]
    outputs = answered(version_of(), SCORED, parameters={"content_type": "pd"}, outputs=requested)["outputs"]
    assert [(output["shape"], output["parameters"]) for output in outputs] == [
        ([2, 1], {"content_type": "np"}),
        ([2, 2], {"content_type": "np"}),
        ([2, 1], {"content_type": "str"}),
    ]


def test_metadata_tells_inputs_in_card_order_and_all_outputs():
    metadata = model_metadata(version_of(), [1, 3])
    assert metadata["versions"] == ["1", "3"]
    assert [(tensor["name"], tensor["datatype"], tensor["shape"]) for tensor in metadata["inputs"]] == [
        ("age", "INT64", [-1]),
        ("income", "FP64", [-1]),
        ("member", "BOOL", [-1]),
        ("city", "BYTES", [-1]),
    ]
    assert [(tensor["name"], tensor["shape"]) for tensor in metadata["outputs"]] == [
        ("predict", [-1]),
        ("predict_proba", [-1, 2]),
        ("label", [-1]),
    ]

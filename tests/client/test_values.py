"""What notebooks hold is sent as the service takes it, and comes back as data frames."""

import asyncio
import datetime
import decimal
import inspect
import io
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from guichet import AsyncClient, Client, Refused, Unusable
from guichet.flows.calls import BatchOptions, CsvOptions, RowOptions

from tests.client.scripted import Script, answer, job, result
from tests.conftest import example_rows

WHEN = datetime.datetime(2026, 3, 1, 8, 30)


def sent(row: object) -> object:
    """Return what the service gets for a row."""
    script = Script(answer(200, result()))
    with script.client() as client:
        client.predict(row)
    return json.loads(script.bodies[0])["features"]


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (float("nan"), None),
        (np.nan, None),
        (np.float32("nan"), None),
        (pd.NA, None),
        (pd.NaT, None),
        (np.datetime64("NaT", "ns"), None),
        (decimal.Decimal("NaN"), None),
        (np.int64(3), 3),
        (np.uint8(200), 200),
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.array(7), 7),
        (np.str_("é"), "é"),
        (decimal.Decimal("1.25"), 1.25),
        (pd.Timestamp(WHEN), "2026-03-01T08:30:00"),
        (pd.Timestamp(WHEN, tz="Europe/Paris"), "2026-03-01T08:30:00+01:00"),
        (np.datetime64(WHEN, "ns"), "2026-03-01T08:30:00"),
        (WHEN, "2026-03-01T08:30:00"),
        (WHEN.date(), "2026-03-01"),
        (2**60, 2**60),
        (True, True),
        ("NA", "NA"),
    ],
)
def test_value_of_a_notebook_becomes_plain_json(value, plain):
    value_sent = sent({"a": value})
    assert value_sent == {"a": plain}
    assert type(value_sent["a"]) is type(plain)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (float("inf"), "JSON has no infinity"),
        (np.float32("-inf"), "JSON has no infinity"),
        (pd.Timedelta("1D"), "a Timedelta is not a number"),
        (np.timedelta64(3, "s"), "a timedelta64 is not a number"),
        (np.array([1, 2]), "a ndarray is not a number"),
        (b"x", "a bytes is not a number"),
        (1j, "a complex is not a number"),
        (object(), "a object is not a number"),
    ],
)
def test_value_that_json_cannot_say_is_refused_by_its_feature(value, why):
    script = Script()
    with script.client() as client:
        with pytest.raises(Unusable, match=f"^`age` cannot be sent: {why}"):
            client.predict({"genre": 1, "age": value})
        with pytest.raises(Unusable, match=f"^row 1: `age` cannot be sent: {why}"):
            client.predict_batch([{"age": 1}, {"age": value}])
    assert script.requests == []


def frame(**more: object) -> pd.DataFrame:
    return pd.DataFrame({"age": [41, 23], "job": ["Büro", None], "rate": [0.5, np.nan], "day": [WHEN, pd.NaT], **more})


ROWS = [
    {"age": 41, "job": "Büro", "rate": 0.5, "day": "2026-03-01T08:30:00"},
    {"age": 23, "job": None, "rate": None, "day": None},
]


class Polars:
    """What a data frame of Polars is known by."""

    columns = ("age",)
    shape = (2, 1)

    def to_dicts(self):
        return [{"age": 41}, {"age": 23}]

    def write_csv(self, file):
        file.write(b"age\n41\n23\n")


@pytest.mark.parametrize(
    "row", [frame().iloc[0], frame().head(1), next(frame().itertuples(index=False)), frame().to_dict("records")[0]]
)
def test_row_is_a_series_a_frame_of_one_row_a_named_tuple_or_a_mapping(row):
    assert sent(row) == ROWS[0]


@pytest.mark.parametrize(
    ("rows", "plain"),
    [
        (frame(), ROWS),
        (frame().convert_dtypes(), ROWS),
        (frame().astype({"job": "category"}), ROWS),
        ([row for _, row in frame().iterrows()], ROWS),
        (frame().itertuples(index=False), ROWS),
        ((row for row in frame().to_dict("records")), ROWS),
        (Polars(), [{"age": 41}, {"age": 23}]),
    ],
)
def test_rows_are_a_frame_or_any_rows_one_after_the_other(rows, plain):
    script = Script(answer(202, job(kind="batch")))
    with script.client() as client:
        client.submit_batch(rows)
    assert json.loads(script.bodies[0])["rows"] == plain


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda client: client.predict(frame()), "has 2 rows: give one of them, or use predict_batch"),
        (lambda client: client.predict([1]), "a list is not a row"),
        (lambda client: client.predict({3: 1}), "a feature's name is text, and 3 is not"),
        (lambda client: client.predict_batch({"age": 1}), "for one row use predict"),
        (lambda client: client.predict_batch(7), "must be a list of rows or a data frame"),
        (lambda client: client.predict_batch(pd.DataFrame([[1, 2]])), "name the columns of the data frame"),
        (lambda client: client.predict_batch(pd.DataFrame([[1, 2]], columns=["a", "a"])), "of the same name: a"),
        (lambda client: client.predict_csv(pd.DataFrame([[1, 2]], columns=["a", "a"])), "of the same name: a"),
    ],
)
def test_what_is_no_row_is_refused_with_what_to_do(call, why):
    with Script().client() as client, pytest.raises(Unusable, match=why):
        call(client)


@pytest.mark.parametrize(
    ("rows", "text"), [(frame()[["age", "rate"]], b"age,rate\n41,0.5\n23,\n"), (Polars(), b"age\n41\n23\n")]
)
def test_frame_is_sent_as_the_csv_file_that_its_options_say(rows, text):
    script = Script(answer(202, job(kind="csv")))
    with script.client() as client:
        client.predict_csv(rows, model="credit")
    assert text in script.bodies[0].replace(b"\r\n", b"\n")
    params = dict(script.requests[0].url.params)
    assert params == {"model": "credit", "delimiter": "comma", "encoding": "utf-8", "decimal": "point"}


def test_index_of_a_frame_is_sent_where_it_identifies_the_rows():
    script = Script(*(answer(202, job(kind="csv")) for _ in range(2)))
    named = frame()[["age"]].rename_axis("ref")
    with script.client() as client:
        client.predict_csv(named, id_column="ref")
        client.predict_csv(named)
    assert b"ref,age" in script.bodies[0]
    assert b"ref" not in script.bodies[1]


def test_options_are_the_keywords_that_tab_completion_shows():
    for kind in (Client, AsyncClient):
        for names, options in (
            (("submit", "predict"), RowOptions),
            (("submit_batch", "predict_batch"), BatchOptions),
            (("predict_csv", "validate_csv"), CsvOptions),
        ):
            for name in names:
                parameters = inspect.signature(getattr(kind, name)).parameters
                assert inspect.get_annotations(options).keys() <= parameters.keys(), name
                assert all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters.values()), name


def test_neither_pandas_nor_numpy_is_imported_by_the_client():
    code = "import guichet, sys; guichet.Client(); print({'pandas', 'numpy', 'pyarrow'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_frame_without_pandas_says_what_to_install(monkeypatch):
    script = Script(answer(200, result()))
    with script.client() as client:
        scored = client.predict({"age": 1})
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(Unusable, match="pip install pandas"):
        scored.to_frame()


# ── a running service ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def people() -> pd.DataFrame:
    """Rows of the attrition model, by a name of each, as a notebook may hold them."""
    return pd.DataFrame(example_rows("attrition")[:4], index=list("abcd"))


def test_scores_of_a_frame_stand_beside_its_rows(guichet, people):
    alone = [guichet.predict(row).probability for _, row in people.iterrows()]
    together = people.join(guichet.predict_batch(people).to_frame())
    assert list(together.index) == ["a", "b", "c", "d"]
    assert list(together["probability"]) == alone
    assert together["error"].isna().all()
    assert list(guichet.submit_batch(people).to_frame()["probability"]) == alone
    file = guichet.predict_csv(people).to_frame(join=True)
    assert list(file["probability"]) == alone
    assert guichet.validate_csv(people).valid == 4
    bad = people.assign(age=people["age"].astype(float))
    bad.loc["b", "age"], bad.loc["d", "age"] = 12, np.nan
    scores = guichet.predict_batch(bad).to_frame()
    assert list(scores.index[scores["error"].isna()]) == ["a", "c"]
    assert "age" in scores.loc["b", "error"]


def test_missing_values_of_a_frame_are_null(guichet):
    rows = pd.DataFrame(example_rows("credit")[:2])
    name = next(feature.name for feature in guichet.model("credit").features if feature.nullable)
    rows[name] = [np.nan, pd.NA]
    nulls = [{**row, name: None} for row in example_rows("credit")[:2]]
    expected = [item.probability for item in guichet.predict_batch(nulls, model="credit").items]
    assert list(guichet.predict_batch(rows, model="credit").to_frame()["probability"]) == expected
    assert list(guichet.predict_csv(rows, model="credit").to_frame()["probability"]) == expected


def test_model_is_read_with_its_card_and_an_example_that_it_scores(guichet, client):
    model = guichet.model("attrition")
    assert (model.name, model.version, model.aliases, model.task) == ("attrition", 1, ["champion"], "binary")
    assert model.card == client.get("/models/attrition").json()["card"]
    assert [feature.name for feature in model.features] == list(model.example)
    assert guichet.predict(model.example, model="attrition@champion").model_version == 1
    assert guichet.model("attrition@1") == model
    with pytest.raises(Refused, match="no such version or alias"):
        guichet.model("attrition@2")


def test_asyncio_has_the_same(stack, people):
    async def ask() -> tuple[list[float], list[float], str]:
        async with AsyncClient(stack.url) as client:
            batch = await client.predict_batch(people)
            file = await client.predict_csv(people)
            frame = await file.to_frame()
            return (
                list(batch.to_frame()["probability"]),
                list(frame["probability"]),
                (await client.model("credit")).name,
            )

    batch, file, name = asyncio.run(ask())
    assert batch == file
    assert name == "credit"


def test_file_in_memory_is_still_a_file():
    script = Script(answer(202, job(kind="csv")))
    with script.client() as client:
        client.predict_csv(io.BytesIO(b"age\n1\n"))
    assert dict(script.requests[0].url.params) == {}

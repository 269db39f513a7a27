"""Files as people have them: what comes out is what the estimator says of them as pandas would read them."""

import io
import json
import random
import zipfile
from pathlib import Path
from typing import Any

import httpx2
import joblib
import numpy as np
import openpyxl
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sqlalchemy import Engine

from shared.database.engine import session_scope
from shared.errors import CardError
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import add
from tests.contracts.csv_files import check_taken, post_csv, post_form
from tests.contracts.helpers import check_problem, stored_rows, wait_for_job, wait_until
from tests.support.csv_jobs import read_csv

XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


@pytest.fixture(scope="session")
def estimator() -> Any:
    """A model of an income and a city."""
    frame = pd.DataFrame({"income": np.arange(60.0), "city": ["Paris", "Lyon", "Nice"] * 20})
    encoder = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["city"]), remainder="passthrough")
    target = frame.income * 0.5 + frame.city.map({"Paris": 100.0, "Lyon": 1.0, "Nice": 0.0})
    return make_pipeline(encoder, LinearRegression()).fit(frame, target)


@pytest.fixture
def model(
    client: httpx2.Client, engine: Engine, estimator: Any, models_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The name under which it serves."""
    if client.get("/models/incomes").status_code == 404:
        folder = tmp_path_factory.mktemp("incomes")
        joblib.dump(estimator, folder / "model.joblib")
        (folder / "rows.csv").write_text("income,city\n1.5,Paris\n2.0,Lyon\n3.0,Nice\n")
        with session_scope(engine) as session:
            add(
                session,
                folder / "model.joblib",
                AddOptions(reference=folder / "rows.csv", name="incomes"),
                models_dir=models_dir,
            )
        wait_until(lambda: client.get("/models/incomes").status_code == 200 or None)
    return "incomes"


def scored(client: httpx2.Client, content: bytes, model: str, **params: Any) -> tuple[list[float], list[str]]:
    """Send a file; return its scores and what was told of it."""
    job = check_taken(post_csv(client, content, model=model, **params))
    wait_for_job(client, job["id"], seconds=40)
    output = read_csv(client.get(f"/jobs/{job['id']}/output.csv").content, job["csv"]["delimiter"])
    decimal = job["csv"]["decimal"]
    return [float(line["prediction"].replace(decimal, ".")) for line in output], job["csv"]["notices"]


def predicted(estimator: Any, content: bytes, **options: Any) -> list[float]:
    """What the estimator itself says of a file that pandas reads."""
    content = content.replace("\u202f".encode(), b" ")  # pandas takes no more than one byte for thousands
    frame = pd.read_csv(io.BytesIO(content), **options)[["income", "city"]]
    return [float(value) for value in estimator.predict(frame)]


GERMAN = b"income;city\n1.234;Paris\n12,50;Lyon\n"
FILES = [
    (b"income, city\n1, Paris\n1, Lyon\n", {"skipinitialspace": True}, "Blanks behind the delimiters"),
    (b'income\tcity\n"1,234,567"\tParis\n"52,000"\tLyon\n950\tNice\n', {"sep": "\t", "thousands": ","}, "a comma betw"),
    (GERMAN, {"sep": ";", "thousands": ".", "decimal": ","}, "a point between thousands"),
    (
        "income;city\n1\u202f234,5;Paris\n52\u202f000;Lyon\n".encode(),
        {"sep": ";", "thousands": " ", "decimal": ","},
        "bla",
    ),
    (b"INCOME,City\n1,Paris\n2,Lyon\n", {"names": ["income", "city"], "skiprows": 1}, "differ in case"),
    (b"Report,\n\nincome,city\n1,Paris\n", {"skiprows": 2}, "The header is in line 3"),
    (b"income,city\n1,Paris\n,\n,\n", {"nrows": 1}, "2 empty rows at the end"),
]


@pytest.mark.parametrize(("content", "options", "notice"), FILES)
def test_file_is_read_as_pandas_is_told_to_and_the_job_says_so(
    client: httpx2.Client, model: str, estimator: Any, content: bytes, options: dict[str, Any], notice: str
) -> None:
    scores, notices = scored(client, content, model)
    assert scores == pytest.approx(predicted(estimator, content, **options), abs=1e-6)
    assert any(notice in sentence for sentence in notices), notices


def test_prices_are_numbers_and_another_currency_is_not(client: httpx2.Client, model: str, estimator: Any) -> None:
    content = "income,city\n€12.50,Paris\n€7,Lyon\n".encode()
    scores, notices = scored(client, content, model)
    assert scores == pytest.approx(predicted(estimator, content.replace("€".encode(), b"")), abs=1e-6)
    assert "The sign € beside numbers was left out." in notices


@pytest.mark.parametrize("content", [b"income\tcity\n52,000\tParis\n", b"income;city\n1.234;Paris\n"])
def test_number_that_means_two_things_is_refused_until_its_mark_is_given(
    client: httpx2.Client, model: str, estimator: Any, content: bytes
) -> None:
    problem = check_problem(post_csv(client, content, model=model), 422, "invalid_row")
    assert problem["errors"][0]["code"] == "ambiguous_number"
    assert "Say which with decimal" in problem["detail"]
    for decimal, word in ((".", "point"), (",", "comma")):
        options = {"sep": None, "engine": "python", "decimal": decimal, "thousands": "," if decimal == "." else "."}
        scores, _ = scored(client, content, model, decimal=word)
        assert scores == pytest.approx(predicted(estimator, content, **options), abs=1e-6)


def test_bytes_of_utf16_without_a_mark_are_read_in_the_order_that_is_given(
    client: httpx2.Client, model: str, estimator: Any
) -> None:
    content = "income,city\n1.5,Paris\n".encode("utf-16-be")
    scores, _ = scored(client, content, model, encoding="utf-16be")
    assert scores == pytest.approx(predicted(estimator, content, encoding="utf-16-be"), abs=1e-6)


def test_utf8_that_is_said_to_be_cp1252_is_refused(client: httpx2.Client, model: str) -> None:
    content = "income,city\n1,Nîmes\n".encode()
    assert (
        "The file is UTF-8" in check_problem(post_csv(client, content, model=model, encoding="cp1252"), 422)["detail"]
    )


def test_values_that_the_model_does_not_know_are_told(client: httpx2.Client, model: str) -> None:
    _, notices = scored(client, b"income,city\n1,Brest\n2,Metz\n3,Paris\n", model)
    assert [notice for notice in notices if "2 of the first 3 values of 'city' are unknown" in notice]


def workbook(rows: list[list[Any]]) -> bytes:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for row in rows:
        sheet.append(row)
    book.create_sheet("other")
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def test_workbook_is_scored_as_pandas_reads_it(client: httpx2.Client, model: str, estimator: Any) -> None:
    rows: list[list[Any]] = [
        ["income", "city", "note"],
        [1234.5, "Paris", "a;b"],
        [52000, "Lyon", None],
        [0.1, "Nice", 7],
    ]
    content = workbook(rows)
    frame = pd.DataFrame(rows[1:], columns=rows[0])[["income", "city"]]
    scores, notices = scored(client, content, model)
    assert scores == pytest.approx(list(estimator.predict(frame)), abs=1e-6)
    assert notices == ["The rows are those of the sheet 'Sheet', the first of 2."]
    job = check_taken(post_form(client, content, "rows.xlsx", model=model))
    assert job["csv"]["filename"] == "rows.xlsx"
    wait_for_job(client, job["id"], seconds=40)
    answer = client.post("/predict_csv", params={"model": model}, content=content, headers={"Content-Type": XLSX})
    wait_for_job(client, check_taken(answer)["id"], seconds=40)


def test_sheet_of_a_workbook_is_chosen_and_its_title_left_out(
    client: httpx2.Client, model: str, estimator: Any
) -> None:
    book = openpyxl.Workbook()
    book.create_sheet("notes").append(["nothing", "here"])
    sheet = book.create_sheet("été 2026")
    for line in (["Incomes of 2026"], [], ["income", "city"], [1234.5, "Paris"], [0.1, "Nice"]):
        sheet.append(line)
    sheet.merge_cells("A1:B1")
    out = io.BytesIO()
    book.save(out)
    frame = pd.DataFrame({"income": [1234.5, 0.1], "city": ["Paris", "Nice"]})
    scores, notices = scored(client, out.getvalue(), model, sheet="été 2026")
    assert scores == pytest.approx(list(estimator.predict(frame)), abs=1e-6)
    assert notices == ["The rows are those of the sheet 'été 2026'. 1 line above the table was left out."]
    missing = check_problem(post_csv(client, out.getvalue(), model=model, sheet="gone"), 415)["detail"]
    assert "it has no visible sheet 'gone': it has 'Sheet', 'notes', 'été 2026'" in missing
    plain = check_problem(post_csv(client, b"income,city\n1,Paris\n", model=model, sheet="x"), 422)
    assert [fault["pointer"] for fault in plain["errors"]] == ["/query/sheet"]


def test_cells_with_a_formula_that_was_never_computed_are_named(client: httpx2.Client, model: str) -> None:
    # openpyxl writes formulas without values, as programs do that only write a workbook.
    rows = [["income", "city"], [1234.5, "Paris"], *([f"=A{place - 1}*2", "Lyon"] for place in range(3, 7))]
    report = post_csv(client, workbook(rows), model=model, validate_only=True).json()
    assert (report["rows"], report["invalid"]) == (5, 4)
    assert report["format"]["notices"] == [
        "The rows are those of the sheet 'Sheet', the first of 2.",
        "4 cells have a formula without a stored value (A3, A4, A5, …) and were read as empty: open the workbook in a "
        "spreadsheet program, save it, and send it again.",
    ]
    one = post_csv(client, workbook(rows[:3]), model=model, validate_only=True).json()["format"]["notices"]
    assert one[1].startswith("1 cell has a formula without a stored value (A3) and was read as empty")
    job = check_taken(post_form(client, workbook(rows), "rows.xlsx", model=model))
    assert [notice for notice in job["csv"]["notices"] if "4 cells have a formula" in notice]


def test_values_of_computed_formulas_are_read_without_a_word(client: httpx2.Client, model: str) -> None:
    out = io.BytesIO()
    content = workbook([["income", "city"], ["=1000*2", '=LEFT("",1)']])
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            written = source.read(name)
            if name == "xl/worksheets/sheet1.xml":  # as Excel saves it: with the values, also an empty text
                written = written.replace(b"<f>1000*2</f><v />", b"<f>1000*2</f><v>2000</v>")
                written = written.replace(b'<c r="B2"><f>', b'<c r="B2" t="str"><f>')
            target.writestr(name, written)
    report = post_csv(client, out.getvalue(), model=model, validate_only=True).json()
    assert report["format"]["notices"] == ["The rows are those of the sheet 'Sheet', the first of 2."]
    assert [error["column"] for error in report["errors"]] == ["city"]  # an empty text is no city


def test_workbook_that_asks_for_all_memory_is_refused_and_the_service_lives(client: httpx2.Client, model: str) -> None:
    corners = '<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>2</v></c></row>'
    space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(workbook([["a"]]))) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            is_sheet = name.endswith("sheet1.xml")
            sheet = f'<worksheet xmlns="{space}"><sheetData>{corners}</sheetData></worksheet>'.encode()
            target.writestr(name, sheet if is_sheet else source.read(name))
    answer = post_csv(client, out.getvalue(), model=model)
    assert "more memory or time than a workbook may" in check_problem(answer, 415)["detail"]
    assert client.get("/livez").status_code == 200


# ── one reader ───────────────────────────────────────────────────────────────────────────────────────────────────

CELLS = [
    "1",
    "1.5",
    "-2e3",
    ".5",
    "3.",
    "007",
    "+4",
    " 5",
    "NA",
    "N/A",
    "n/a",
    "#N/A",
    "NaN",
    "nan",
    "null",
    "NULL",
    "None",
]
CELLS += ["<NA>", "", "-nan", "#NA"]
WORDS = ["oui", "1_000", "inf", "Infinity", "１２", "Null", "none", "12%", "0x1", "1e999", "٣"]


def numbers(count: int) -> list[str]:
    rng = random.Random(11)
    forms = ("{:.3f}", "{:.0f}", "{:e}", "{:g}", " {:.2f}", "{:+.1f}")
    return [rng.choice(forms).format(rng.uniform(-1, 1) * 10 ** rng.randint(-3, 9)) for _ in range(count)]


def test_reference_rows_and_files_to_score_are_read_to_the_values_that_pandas_reads(
    client: httpx2.Client, engine: Engine, model: str, models_dir: Path, estimator: Any, tmp_path: Path
) -> None:
    cells = [*CELLS, *numbers(300)]
    content = "".join(["income,city\n", *(f"{cell},Paris\n" for cell in cells)]).encode()
    expected = pd.read_csv(io.BytesIO(content)).income
    assert expected.dtype == float
    values = [None if np.isnan(value) else value for value in expected]

    (tmp_path / "rows.csv").write_bytes(content)
    simple = LinearRegression().fit(pd.DataFrame({"income": [1.0, 2.0]}), [1.0, 2.0])
    imputing = make_pipeline(_imputer(), simple).fit(pd.DataFrame({"income": [1.0, np.nan]}), [1.0, 2.0])
    joblib.dump(imputing, tmp_path / "model.joblib")
    with session_scope(engine) as session:
        row = add(
            session,
            tmp_path / "model.joblib",
            AddOptions(reference=tmp_path / "rows.csv", name="cells"),
            models_dir=models_dir,
        )
        label = (row.name, str(row.version))
    lines = models_dir.joinpath(*label, "reference.jsonl").read_text().splitlines()
    assert [json.loads(line)["income"] for line in lines] == values

    wait_until(lambda: client.get("/models/cells").status_code == 200 or None)
    job = check_taken(post_csv(client, content, model="cells", version=label[1]))
    wait_for_job(client, job["id"], seconds=40)
    assert [reference["features"]["income"] for reference in stored_rows(engine, job["id"])] == values


@pytest.mark.parametrize("word", WORDS)
def test_what_is_no_number_is_none_for_both(
    client: httpx2.Client, engine: Engine, model: str, models_dir: Path, tmp_path: Path, word: str
) -> None:
    content = f"income,city\n1.5,Paris\n{word},Paris\n".encode()
    report = post_csv(client, content, model=model, validate_only=True).json()
    assert [(error["row_no"], error["column"], error["code"]) for error in report["errors"]] == [(2, "income", "type")]
    folder = models_dir / model / "1"
    (tmp_path / "rows.csv").write_bytes(content)
    with (
        session_scope(engine) as session,
        pytest.raises(CardError, match="the card of incomes: income must be a finite number"),
    ):
        add(
            session,
            folder / "model.joblib",
            AddOptions(card=folder / "model.json", reference=tmp_path / "rows.csv"),
            models_dir=models_dir,
        )


def _imputer() -> Any:
    from sklearn.impute import SimpleImputer

    return SimpleImputer(keep_empty_features=True)

"""Reference data: what a file becomes in the database, and what is left when it is not taken."""

import gzip
import os
import threading

import pytest
from sqlalchemy import func, select

from shared.cards.numbers import NumberForm
from shared.commands.registry import main
from shared.csv.format import CsvOptions
from shared.csv.targets import TargetReader
from shared.errors import Conflict, InvalidRequest, NotFound, RowFaults, Unavailable, UnsupportedMediaType
from shared.reference import load as reference_load
from shared.reference.data import drop_set, find_set, list_sets, replace_set
from shared.reference.load import load
from shared.tables import ReferenceRow, ReferenceSet
from tests.support.cards import PEOPLE, people, use
from tests.support.databases import either_engine, settings_for, settings_of

HEADER = "matricule;age;début;salaire;poste;ville;télétravail;parti"
FRENCH = [
    "A1;41;20;2500,50;Ingénieur d'études;Nîmes;oui;Oui",
    'A2;29;19;"1800";"Chef ""adjoint"";\nsecteur";;non;Non',
    "A3;52;21;3,1e3;Tech\\Lead\u00a0😀;Aÿ;;Non",
]
ROWS = [
    {"age": 41, "début": 20, "salaire": 2500.5, "poste": "Ingénieur d'études", "ville": "Nîmes", "télétravail": True},
    {"age": 29, "début": 19, "salaire": 1800.0, "poste": 'Chef "adjoint";\nsecteur', "ville": None}
    | {"télétravail": False},
    {"age": 52, "début": 21, "salaire": 3100.0, "poste": "Tech\\Lead\u00a0😀", "ville": "Aÿ", "télétravail": None},
]


@pytest.fixture(scope="module", params=["postgresql", "sqlite"])
def database(request, session_postgres, tmp_path_factory):
    """A migrated database of each dialect."""
    folder = tmp_path_factory.mktemp("reference")
    with either_engine(request.param, "reference_data", session_postgres, folder) as engine:
        yield engine


@pytest.fixture
def engine(database):
    """The database without reference data; its model `m` has the card of `people`."""
    use(database, people())
    yield database
    with database.begin() as connection:
        connection.exec_driver_sql("DELETE FROM reference_sets")


def written(folder, rows=FRENCH, name="rows.csv", *, header=HEADER, encoding="utf-8", end="\r\n"):
    path = folder / name
    path.write_bytes(end.join([header, *rows, ""]).encode(encoding))
    return path


def good(number, target="Non"):
    return f"A{number};{20 + number % 40};18;{1000 + number},5;Cadre;Lyon;oui;{target}"


def stored(engine):
    """Return the rows and targets that are stored, in order."""
    with engine.connect() as connection:
        rows = connection.execute(
            select(ReferenceRow.features, ReferenceRow.target).order_by(ReferenceRow.set_id, ReferenceRow.row_no)
        ).all()
    return [row.features for row in rows], [row.target for row in rows]


def count(engine):
    with engine.connect() as connection:
        return [connection.scalar(select(func.count()).select_from(table)) for table in (ReferenceSet, ReferenceRow)]


# ── good files ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("encoding", "options", "used"),
    [
        ("utf-8", None, "utf-8"),
        ("utf-8-sig", None, "utf-8"),
        ("utf-16", None, "utf-16"),
        ("cp1252", None, "cp1252"),
        ("latin-1", "latin-1", "latin-1"),
    ],
)
def test_file_of_a_french_spreadsheet_is_stored_in_the_cards_own_form(engine, tmp_path, encoding, options, used):
    lines = [line.replace("😀", "é") if encoding in ("cp1252", "latin-1") else line for line in FRENCH]
    path = written(tmp_path, lines, encoding=encoding)
    loaded = load(engine, path, model="m", target="parti", csv_options=CsvOptions(encoding=options))
    expected = [dict(row) for row in ROWS]
    if encoding in ("cp1252", "latin-1"):
        expected[2]["poste"] = expected[2]["poste"].replace("😀", "é")
    rows, targets = stored(engine)
    assert rows == expected
    assert targets == [1, 0, 0]
    assert loaded.ignored == ["matricule"]
    with engine.connect() as connection:
        assert find_set(connection, "m") == loaded.stored
        assert list_sets(connection) == [loaded.stored]
    kept = loaded.stored
    assert (kept.row_count, kept.skipped_count, kept.target, kept.version) == (3, 0, "parti", 1)
    assert (kept.delimiter, kept.decimal, kept.encoding, kept.filename) == (";", ",", used, "rows.csv")


def test_gzipped_file_is_expanded_and_known_by_the_bytes_on_disk(engine, tmp_path):
    plain = written(tmp_path)
    packed = tmp_path / "rows.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    first = load(engine, plain, model="m", target="parti")
    second = load(engine, packed, model="m", target="parti")
    assert second.stored.byte_count == first.stored.byte_count == plain.stat().st_size
    assert second.stored.sha256 != first.stored.sha256
    assert stored(engine)[0] == ROWS


def test_file_without_a_target_has_rows_without_answers(engine, tmp_path):
    loaded = load(engine, written(tmp_path), model="m")
    assert loaded.ignored == ["matricule", "parti"]
    assert stored(engine) == (ROWS, [None] * 3)
    with engine.connect() as connection:
        query = select(func.count()).select_from(ReferenceRow).where(ReferenceRow.target.is_(None))
        assert connection.scalar(query) == 3  # SQL's null, not JSON's


def test_target_of_the_card_is_taken_where_the_file_has_it(engine, tmp_path):
    use(engine, people(target="parti"))
    assert load(engine, written(tmp_path), model="m").stored.target == "parti"
    without = [line.rpartition(";")[0] for line in FRENCH]
    loaded = load(engine, written(tmp_path, without, "other.csv", header=HEADER.rpartition(";")[0]), model="m")
    assert loaded.stored.target is None


def test_many_rows_keep_their_order(engine, tmp_path):
    total = 9_001  # three chunks
    loaded = load(engine, written(tmp_path, map(good, range(total))), model="m")
    assert loaded.stored.row_count == total
    assert [row["salaire"] for row in stored(engine)[0]] == [1000.5 + number for number in range(total)]


# ── loading again ────────────────────────────────────────────────────────────────────────────────────────────────


def test_same_file_again_changes_nothing(engine, tmp_path):
    path = written(tmp_path)
    first = load(engine, path, model="m", target="parti")
    for options in (CsvOptions(), CsvOptions(delimiter=";", encoding="utf-8", decimal="comma")):
        again = load(engine, path, model="m", target="parti", csv_options=options)
        assert again.unchanged
        assert again.stored == first.stored


def test_same_file_with_other_options_is_read_again(engine, tmp_path):
    path = written(tmp_path, [good(1), good(2)], encoding="cp1252")
    loaded = load(engine, path, model="m", target="parti", csv_options=CsvOptions(encoding="latin-1"))
    assert loaded.stored.encoding == "latin-1"
    assert load(engine, path, model="m", target="parti", csv_options=CsvOptions(encoding="latin-1")).unchanged
    detected = load(engine, path, model="m", target="parti")
    assert (detected.unchanged, detected.stored.encoding) == (False, "cp1252")
    assert not load(engine, path, model="m", target="parti", csv_options=CsvOptions(thousands="space")).unchanged


def test_utf8_that_is_said_to_be_latin_1_is_not_loaded(engine, tmp_path):
    with pytest.raises(RowFaults, match="The file is UTF-8, not latin-1"):
        load(engine, written(tmp_path), model="m", csv_options=CsvOptions(encoding="latin-1"))
    assert count(engine) == [0, 0]


def test_same_file_read_otherwise_is_loaded_again(engine, tmp_path):
    path = written(tmp_path, [good(1), good(2)])
    assert load(engine, path, model="m").stored.target is None
    answered = load(engine, path, model="m", target="parti")
    assert not answered.unchanged
    assert stored(engine)[1] == [0, 0]
    use(engine, people(), people(version=2, features=PEOPLE[:5]))
    assert load(engine, path, model="m", target="parti").stored.version == 2
    assert "télétravail" not in stored(engine)[0][0]


def test_another_file_replaces_all_rows(engine, tmp_path):
    first = load(engine, written(tmp_path, map(good, range(50))), model="m")
    second = load(engine, written(tmp_path, name="other.csv"), model="m", target="parti")
    assert second.replaced == first.stored
    assert stored(engine) == (ROWS, [1, 0, 0])
    assert count(engine) == [1, 3]


def test_failure_while_rows_are_stored_keeps_the_earlier_ones(engine, tmp_path):
    load(engine, written(tmp_path), model="m", target="parti")

    def pieces():
        yield [('{"age": 1}', None)]
        raise OSError("the disk is gone")

    with engine.connect() as connection:
        row = connection.execute(select(ReferenceSet.__table__)).mappings().one()
    values = {name: value for name, value in row.items() if name not in ("id", "created_at")}
    with pytest.raises(OSError, match="disk"), engine.begin() as connection:
        replace_set(connection, values | {"row_count": 2}, pieces())
    assert stored(engine) == (ROWS, [1, 0, 0])


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_second_of_two_loaders_at_once_is_told(engine, tmp_path):
    values = {"model_name": "m", "model_version_id": 1, "filename": "f", "sha256": "0" * 64, "byte_count": 1}
    values |= {"delimiter": ",", "encoding": "utf-8", "decimal": ".", "row_count": 1, "skipped_count": 0}
    raised = []

    def second():
        try:
            load(engine, written(tmp_path), model="m")
        except Conflict as error:
            raised.append(error.detail)

    thread = threading.Thread(target=second)
    with engine.begin() as connection:
        replace_set(connection, values, [[('{"age": 1}', None)]])
        thread.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        while not connection.exec_driver_sql(waiting).scalar():
            assert thread.is_alive()
    thread.join(10)
    assert "Somebody else has just loaded" in raised[0]
    assert count(engine) == [1, 1]


# ── bad files ────────────────────────────────────────────────────────────────────────────────────────────────────


BAD = [
    good(1),
    good(2).replace(";22;", ";12;"),
    good(3).replace("1003,5", "trois mille"),
    good(4, "peut-être"),
    good(5, ""),
    good(6) + ";x",
    ";;;;;;;",
    good(8).replace(";18;", ";69;"),
    good(9, "?").replace("Cadre", ""),
]
FAULTS = [
    ("/rows/2/age", "range"),
    ("/rows/3/salaire", "type"),
    ("/rows/4/parti", "category"),
    ("/rows/5/parti", "null"),
    ("/rows/6", "columns"),
    ("/rows/7", "empty_row"),
    ("/rows/8/début", "rule"),
    ("/rows/9/poste", "null"),
    ("/rows/9/parti", "category"),
]


def test_every_bad_row_is_told_and_nothing_is_loaded(engine, tmp_path):
    before = load(engine, written(tmp_path), model="m").stored
    message = r"^8 of the 9 rows of bad\.csv do not fit the card of m@1 \(9 faults in all\), and nothing was loaded"
    with pytest.raises(RowFaults, match=message) as caught:
        load(engine, written(tmp_path, BAD, "bad.csv"), model="m", target="parti")
    assert [(fault.pointer, fault.code) for fault in caught.value.faults] == FAULTS
    with engine.connect() as connection:
        assert find_set(connection, "m") == before


def test_bad_rows_are_left_out_where_that_is_asked(engine, tmp_path):
    path = written(tmp_path, BAD)
    loaded = load(engine, path, model="m", target="parti", skip_bad=True)
    assert (loaded.stored.row_count, loaded.stored.skipped_count) == (1, 8)
    assert [row["salaire"] for row in stored(engine)[0]] == [1001.5]
    assert load(engine, path, model="m", target="parti", skip_bad=True).unchanged
    with pytest.raises(RowFaults):  # without --skip-bad the same file is not what is there
        load(engine, path, model="m", target="parti")


def test_file_of_bad_rows_only_is_refused_even_so(engine, tmp_path):
    rows = [good(number).replace("Cadre", "") for number in range(30)]
    with pytest.raises(RowFaults, match=r"None of the 30 rows .* correct the file") as caught:
        load(engine, written(tmp_path, rows), model="m", skip_bad=True)
    assert len(caught.value.faults) == 20
    assert count(engine) == [0, 0]


def test_faults_of_several_chunks_are_counted_and_the_first_twenty_told(engine, tmp_path):
    rows = [good(number) if number % 500 else good(number, "?") for number in range(12_000)]
    with pytest.raises(RowFaults, match=r"^24 of the 12,000 rows .* \(24 faults in all\)") as caught:
        load(engine, written(tmp_path, rows), model="m", target="parti")
    assert [fault.pointer for fault in caught.value.faults] == [f"/rows/{1 + 500 * n}/parti" for n in range(20)]


@pytest.mark.parametrize(
    ("content", "options", "kind", "message"),
    [
        (b"", {}, RowFaults, "The file is empty"),
        (HEADER.encode(), {}, RowFaults, "no rows"),
        (b"age;poste\n1;2\n", {}, RowFaults, "salaire is not in the header"),
        (b"PK\x03\x04 xl/workbook.xml", {}, UnsupportedMediaType, "Excel workbook cannot be read"),
        ("\r\n".join([HEADER, *FRENCH]).encode(), {"target": "gone"}, InvalidRequest, "no column 'gone' .* matricule"),
        ("\r\n".join([HEADER, *FRENCH]).encode(), {"target": "age"}, InvalidRequest, "'age' is a feature of m"),
        (
            "\r\n".join([HEADER, *FRENCH]).encode(),
            {"csv_options": CsvOptions(encoding="x")},
            InvalidRequest,
            "encoding must be",
        ),
        ("\r\n".join([HEADER, *FRENCH]).encode(), {"model": "n"}, NotFound, "no model 'n'"),
        ("\r\n".join([HEADER, *FRENCH]).encode(), {"version": 7}, NotFound, "no version 7 of m"),
    ],
)
def test_file_that_cannot_be_meant_is_refused_in_a_sentence(engine, tmp_path, content, options, kind, message):
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(kind, match=message):
        load(engine, path, **{"model": "m"} | options)
    assert count(engine) == [0, 0]


def test_path_that_is_no_file_is_refused(engine, tmp_path):
    with pytest.raises(NotFound, match="There is no file"):
        load(engine, tmp_path / "gone.csv", model="m")
    with pytest.raises(InvalidRequest, match="cannot be read"):
        load(engine, tmp_path, model="m")


def test_full_disk_stops_the_load_before_anything_is_stored(engine, tmp_path, monkeypatch):
    device = os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb", buffering=0)
    monkeypatch.setattr(reference_load.tempfile, "TemporaryFile", lambda: device)
    with pytest.raises(Unavailable, match=r"cannot be kept in .* make room there"):
        load(engine, written(tmp_path), model="m")
    assert count(engine) == [0, 0]


# ── dropping ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_dropped_data_are_gone_with_their_rows(engine, tmp_path):
    kept = load(engine, written(tmp_path), model="m").stored
    with engine.begin() as connection:
        assert drop_set(connection, "m") == kept
    assert count(engine) == [0, 0]
    with pytest.raises(NotFound, match="of 'm'; there are some of: no model"), engine.begin() as connection:
        drop_set(connection, "m")


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_command_loads_lists_and_drops(engine, tmp_path, capsys):
    path, bad = written(tmp_path), written(tmp_path, BAD, "bad.csv")
    loading = ["reference", "load", str(path), "--model", "m", "--target", "parti"]
    with settings_of(**settings_for(engine.url.render_as_string(hide_password=False))):
        assert main(loading) == 0
        assert capsys.readouterr().out.startswith("m: 3 rows, target parti, from rows.csv (sha256 ")
        assert main([*loading, "--delimiter", "semicolon"]) == 0
        assert capsys.readouterr().out.startswith("Nothing to do, the same file is loaded already.")
        assert main(["reference", "load", str(bad), "--model", "m", "--target", "parti"]) == 1
        out, err = capsys.readouterr()
        assert not out
        assert err.splitlines()[0] == "row 2, age: must be an integer between 16 and 70 (range)"
        assert err.splitlines()[-1].startswith("error: 8 of the 9 rows of bad.csv do not fit")
        assert not any(value in err for value in ("trois mille", "peut-être"))
        assert main(["reference", "load", str(bad), "--model", "m", "--skip-bad"]) == 0
        out, err = capsys.readouterr()
        assert "m: 3 rows, 6 left out, no target" in out
        assert "Replaced: m: 3 rows" in out
        assert "row 2, age" in err
        assert main(["reference", "list"]) == main(["reference", "list", "--json"]) == 0
        assert '"filename": "bad.csv"' in capsys.readouterr().out
        assert main(["reference", "drop", "m"]) == 0
        assert main(["reference", "drop", "m"]) == 1
        assert main(["reference", "list"]) == 0
        assert "No model has reference data yet." in capsys.readouterr().err


# ── answers that were true ───────────────────────────────────────────────────────────────────────────────────────


def meaning(card, cell, decimal="."):
    value = TargetReader(card, "y", NumberForm(decimal)).read(cell)
    return (type(value).__name__, value) if not hasattr(value, "code") else value.code


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        *(("0", 0), ("1", 1), (" 1 ", 1), ("1.0", 1), ("Part", 1), ("reste", 0), ("Oui", 1), ("FAUX", 0), ("no", 0)),
        *(("", "null"), ("NA", "null"), ("2", "category"), ("0.5", "category"), ("parti", "category")),
    ],
)
def test_answer_of_a_binary_model_is_its_class_however_it_is_written(cell, value):
    assert meaning(people(), cell) == (("int", value) if isinstance(value, int) else value)


def test_a_class_counts_before_a_label_and_a_label_before_yes_and_no():
    assert meaning(people(labels={"0": "1", "1": "0"}), "1") == ("int", 1)
    assert meaning(people(labels={"0": "oui", "1": "non"}), "Oui") == ("int", 0)
    assert meaning(people(labels={"0": "NA", "1": "Part"}), "NA") == ("int", 0)


def test_answers_of_other_models_have_the_type_of_their_classes():
    three = {"task": "multiclass", "threshold": None}
    assert meaning(people(**three, labels={"low": "Bas", "mid": "Moyen", "high": "Haut"}), "Moyen") == ("str", "mid")
    assert meaning(people(**three, labels={"1": "a", "2": "b", "3": "c"}), "c") == ("int", 3)
    assert meaning(people(**three, labels={"1": "a", "2": "b", "3": "c"}), "oui") == "category"
    assert meaning(people(**three, labels={"0.5": "a", "1.0": "b", "2.0": "c"}), "0,5", ",") == ("float", 0.5)
    assert meaning(people(**three, labels={"01": "Ain", "1": "b", "2": "c"}), "1") == ("str", "1")
    assert meaning(people(labels={"False": "non", "True": "oui"}), "true") == ("bool", True)


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("3,5", ("float", 3.5)),
        ("-2", ("float", -2.0)),
        ("", "null"),
        ("cher", "type"),
        ("1e999", "type"),
        ("1.5", "type"),
    ],
)
def test_answer_of_a_regression_is_a_finite_number(cell, value):
    assert meaning(people(task="regression", labels={}), cell, ",") == value

"""Stored predictions can be looked up by SQL and by command, and the samples to try it on are whole."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, delete, text

from scripts import query_predictions
from scripts.checkout import ROOT
from scripts.generate import samples
from shared.cards.card import Card
from shared.database.engine import make_engine, session_scope
from shared.registry.versions import resolve
from shared.tables import ModelAlias, ModelVersion
from tests.conftest import create_database
from tests.support.databases import migrate, settings_for, settings_of

QUERIES = (ROOT / "docs" / "queries.sql").read_text()
BLOCKS = re.findall(r"^-- name: (\w+)\n-- (postgresql: )?(.+)\n((?:(?!-- name).*\n)+)", QUERIES, re.M)
PARAMETERS = {
    "day_from": "2026-03-02",
    "day_before": "2026-03-03",
    "model": "credit_sample",
    "n": 5,
    "margin": 0.05,
    "feature": "loan_amount",
}
# What must come out of the samples: (query, rows); None where the samples hold nothing of it.
ROWS = {
    "job": 3, "lineage": 3, "days": 3, "model": 5, "last": 5, "volume": None, "decisions": None, "near_threshold": None,
    "feature": 7, "missing_values": 30, "failures": 1, "faults": 2, "refusals": 0, "latency": None, "waiting": 0,
    "retried": 0, "files": 0, "two_versions": 0, "callers": 2, "sizes": None,
}  # fmt: skip


@pytest.fixture(scope="module", params=["postgresql", "sqlite"])
def sampled(request, session_postgres, tmp_path_factory) -> Iterator[Engine]:
    """A database with the samples in it, loaded twice."""
    file = tmp_path_factory.mktemp("samples") / "samples.db"
    url = create_database(session_postgres, "samples") if request.param == "postgresql" else f"sqlite:///{file}"
    migrate(url)
    engine = make_engine(url)
    for _ in range(2):
        if request.param == "sqlite":
            samples.load_sqlite(file)
        else:
            raw = engine.raw_connection()
            raw.cursor().execute((samples.FOLDER / "predictions.sql").read_text())
            raw.close()
    yield engine
    engine.dispose()


def batch_of(engine: Engine) -> str:
    with engine.connect() as connection:
        return str(connection.execute(text("SELECT id FROM jobs WHERE kind = 'batch'")).scalar())


def ask(engine: Engine, capsys, *arguments: str) -> tuple[int, str]:
    url = engine.url.render_as_string(hide_password=False)
    with settings_of(**settings_for(url)):
        code = query_predictions.main(arguments)
    return code, capsys.readouterr().out


def rows_of(engine: Engine, capsys, *arguments: str) -> list[dict]:
    return json.loads(ask(engine, capsys, "--format", "json", *arguments)[1])


# ── docs/queries.sql ─────────────────────────────────────────────────────────────────────────────────────────────


def test_every_query_is_known_here():
    assert [name for name, *_ in BLOCKS] == list(ROWS)
    assert QUERIES.count("-- name:") == len(BLOCKS)


@pytest.mark.parametrize(("name", "only", "_sentence", "sql"), BLOCKS, ids=[block[0] for block in BLOCKS])
def test_query_runs(sampled, name, only, _sentence, sql):
    if only and sampled.dialect.name == "sqlite":
        return
    parameters = PARAMETERS | {"job_id": batch_of(sampled)}
    names = set(re.findall(r"(?<!:):(\w+)", sql))
    assert names <= set(parameters)
    with sampled.connect() as connection:
        rows = connection.execute(text(sql), {key: parameters[key] for key in names}).all()
    if ROWS[name] is None:
        assert rows
    else:
        assert len(rows) == ROWS[name]


def test_parameters_of_a_query_are_named_in_its_sentence():
    for name, _only, sentence, sql in BLOCKS:
        assert set(re.findall(r"(?<!:):(\w+)", sql)) == set(re.findall(r":(\w+)", sentence)), name


# ── samples ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_csv_files_of_the_samples_are_what_the_sql_holds(sampled):
    with sampled.connect() as connection:
        files = samples.render_csv(connection)
    if sampled.dialect.name == "sqlite":  # PostgreSQL keeps the keys of an object in an order of its own
        for name, content in files.items():
            assert (samples.FOLDER / name).read_text() == content, "run `make samples`"
    for name, content in files.items():
        kept, made = (list(csv.DictReader(io.StringIO(t))) for t in ((samples.FOLDER / name).read_text(), content))
        assert len(kept) == len(made) > 0


def test_cards_of_the_samples_are_valid(sampled):
    with sampled.connect() as connection:
        cards = connection.execute(ModelVersion.__table__.select()).mappings().all()
    assert [Card.model_validate(row["card"]).name for row in cards] == ["credit_sample", "energy_sample"]


# ── python -m scripts.query_predictions ──────────────────────────────────────────────────────────────────────────


def test_rows_of_one_job_come_in_order_with_their_faults(sampled, capsys):
    rows = rows_of(sampled, capsys, "--id", batch_of(sampled))
    assert [row["row_index"] for row in rows] == [0, 1, 2]
    assert [row["prediction"] is None for row in rows] == [False, True, False]
    assert rows[1]["faults"][0]["code"] == "range"
    assert rows[0]["features"]["loan_amount"] > 0
    assert rows[0]["created_at"].endswith("Z")


def test_day_holds_what_was_accepted_in_it(sampled, capsys):
    every = rows_of(sampled, capsys)
    day = rows_of(sampled, capsys, "--day", "2026-03-03")
    assert day == [row for row in every if row["created_at"].startswith("2026-03-03")] != []
    assert rows_of(sampled, capsys, "--since", "2026-03-03", "--until", "2026-03-04") == day
    assert ask(sampled, capsys, "--day", "2025-01-01", "--format", "json") == (1, "[]\n")


def test_model_version_state_and_last_n_narrow_it(sampled, capsys):
    every = rows_of(sampled, capsys)
    assert len(every) == 14
    credit = rows_of(sampled, capsys, "--model", "credit_sample@1")
    assert (
        credit
        == rows_of(sampled, capsys, "--model", "credit_sample")
        == [row for row in every if row["model"] == "credit_sample"]
    )
    assert rows_of(sampled, capsys, "--model", "credit_sample@2") == []
    assert [row["prediction"] for row in rows_of(sampled, capsys, "--state", "failed")] == [None]
    assert rows_of(sampled, capsys, "--last", "3") == every[:3]
    assert [row["created_at"] for row in every] == sorted((row["created_at"] for row in every), reverse=True)


def test_formats_say_the_same(sampled, capsys, tmp_path):
    every = rows_of(sampled, capsys)
    lines = ask(sampled, capsys, "--format", "jsonl")[1].splitlines()
    assert [json.loads(line) for line in lines] == every
    file = tmp_path / "out.csv"
    assert ask(sampled, capsys, "--format", "csv", "-o", str(file)) == (0, "")
    with file.open(newline="") as opened:
        table = list(csv.DictReader(opened))
    assert [row["job_id"] for row in table] == [row["job_id"] for row in every]
    assert [json.loads(row["features"]) for row in table] == [row["features"] for row in every]
    assert list(tmp_path.iterdir()) == [file]
    shown = ask(sampled, capsys)[1].splitlines()
    assert len(shown) == len(every) + 1
    assert "features" not in shown[0]


def test_wide_csv_has_a_column_for_each_feature(sampled, capsys):
    text = ask(sampled, capsys, "--model", "energy_sample", "--wide", "--format", "csv")[1]
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len([name for name in rows[0] if name.startswith("feature.")]) == 19
    assert all(float(row["feature.floor_area_m2"]) > 0 for row in rows)
    assert "features" not in rows[0]


def test_cell_that_a_spreadsheet_would_run_is_disarmed_and_a_terminal_gets_no_escapes():
    out = io.StringIO()
    query_predictions.write_csv(iter([{"label": '=HYPERLINK("x")', "n": -1.5}]), ["label", "n"], out)
    assert out.getvalue() == 'label,n\n"\'=HYPERLINK(""x"")",-1.5\n'
    out = io.StringIO()
    query_predictions.write_table(iter([{"label": "\x1b[31mred"}]), ["label"], out)
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--id", "1"],
        ["--day", "yesterday"],
        ["--day", "9999-12-31"],
        ["--model", "credit\udcff"],
        ["--model", "credit@no alias"],
        ["--last", "0"],
        ["--wide"],
        ["--day", "2026-03-02", "--since", "2026-03-01"],
    ],
)
def test_option_that_makes_no_sense_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        query_predictions.main(arguments)
    assert caught.value.code == 2


def test_alias_means_the_version_that_has_it_now(sampled, capsys):
    with session_scope(sampled) as session:
        version = resolve(session, "credit_sample", 1)
        session.add(ModelAlias(name=version.name, alias="trusted", model_version_id=version.id))
    try:
        rows = rows_of(sampled, capsys, "--model", "credit_sample@trusted")
        wide = ask(sampled, capsys, "--model", "credit_sample@trusted", "--wide", "--format", "csv")[1]
    finally:
        with session_scope(sampled) as session:
            session.execute(delete(ModelAlias).where(ModelAlias.alias == "trusted"))
    assert rows == rows_of(sampled, capsys, "--model", "credit_sample@1") != []
    assert "feature.loan_amount" in wide.splitlines()[0]


def test_alias_that_no_version_has_is_told_in_one_sentence(sampled, capsys):
    with settings_of(**settings_for(sampled.url.render_as_string(hide_password=False))):
        assert query_predictions.main(["--model", "credit_sample@latest"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "query_predictions: No version of credit_sample has the alias 'latest': promote one of 1.\n"


def test_pipe_gets_the_rows_and_stays_a_pipe(sampled, capsys, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert ask(sampled, capsys, "--last", "2", "--format", "jsonl", "-o", str(pipe)) == (0, "")
        assert os.read(reading, 100_000).count(b"\n") == 2
    finally:
        os.close(reading)
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_output_that_cannot_be_written_is_told_in_one_sentence(sampled, capsys, tmp_path):
    assert ask(sampled, capsys, "-o", str(tmp_path / "none" / "out.csv"))[0] == 1
    command = [sys.executable, "-m", "scripts.query_predictions", "--last", "1"]
    env = os.environ | settings_for(sampled.url.render_as_string(hide_password=False))
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, cwd=ROOT, env=env, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "query_predictions: the output cannot be written (No space left on device)\n"


def test_database_that_is_not_there_is_told_and_not_made(tmp_path):
    url = f"sqlite:///{tmp_path / 'none' / 'guichet.db'}"
    with settings_of(**settings_for(url)), pytest.raises(SystemExit, match=r"guichet: there is no .*/none/guichet.db"):
        query_predictions.main([])
    assert list(tmp_path.iterdir()) == []


def test_database_without_tables_is_told_in_one_sentence(tmp_path, capsys):
    (tmp_path / "bare.db").touch()
    with settings_of(**settings_for(f"sqlite:///{tmp_path / 'bare.db'}")):
        assert query_predictions.main([]) == 1
    err = capsys.readouterr().err
    assert err.startswith("query_predictions: the tables are not there (no such table")
    assert err.count("\n") == 1


def test_reading_writes_nothing(sampled):
    engine = sampled.execution_options(read_only=True, postgresql_readonly=True)
    if engine.dialect.name == "postgresql":
        with engine.connect() as connection, pytest.raises(Exception, match="read-only transaction"):
            connection.execute(text("DELETE FROM jobs"))


def test_rows_of_a_request_are_found_by_its_id(sampled, capsys):
    with sampled.connect() as connection:
        job, request = connection.execute(text("SELECT id, request_id FROM jobs WHERE kind = 'batch'")).one()
    rows = rows_of(sampled, capsys, "--request", request)
    assert str(job) in {row["job_id"] for row in rows}
    assert ask(sampled, capsys, "--request", "nobody-sent-it")[0] == 1

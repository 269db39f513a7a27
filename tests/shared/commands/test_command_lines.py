"""`python -m shared.registry`: exit codes, and a sentence where a command cannot be run."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shared.commands.reference import describe as describe_set
from shared.commands.registry import describe, main
from shared.config.settings import get_settings
from shared.database.engine import get_engine
from shared.reference.data import StoredSet
from shared.tables import ModelVersion
from tests.support.registered import use_empty_registry

EMPTY = "error: No model is registered yet: add one with `python -m shared.registry add`"


@pytest.fixture
def _registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    use_empty_registry(monkeypatch, tmp_path)
    yield
    get_engine().dispose()
    get_engine.cache_clear()
    get_settings.cache_clear()


@pytest.mark.usefixtures("_registry")
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("list", 0, "No model is registered yet."),
        ("list nobody@1", 1, EMPTY),
        ("verify", 0, ""),
        ("verify --plan", 1, "error: name the model whose plan is to be printed"),
        ("promote nobody@1", 1, EMPTY),
        ("rollback nobody", 1, EMPTY),
        ("archive nobody@1", 1, EMPTY),
        ("restore nobody@1", 1, EMPTY),
        ("delete nobody@1", 1, EMPTY),
        ("history nobody", 1, EMPTY),
        ("reference list", 0, "No model has reference data yet."),
        ("reference drop nobody", 1, "error: "),
        ("views --drop", 0, "There are no such views."),
        ("views nobody", 1, EMPTY),
        ("reproduce 00000000-0000-7000-8000-000000000000", 1, "error: "),
    ],
)
def test_command_on_an_empty_registry_ends_with_its_code_and_a_sentence(arguments, code, words, capsys):
    assert main(arguments.split()) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(words)
    assert printed.err.count("\n") == bool(words)
    assert arguments.split()[-1] in printed.err or words != "error: "


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "the following arguments are required: command"),
        ("promote attrition", "write it as name@version or name@alias, e.g. attrition@2"),
        ("archive attrition@0", "write it as name@version or name@alias, e.g. attrition@2"),
        ("add model.joblib --version 0", "a version is a number from 1 on"),
        ("add model.joblib --labels 0=Reste,1", "write them as class=label, e.g. 0=Reste,1=Part"),
        ("add model.joblib --threshold 0.5 --threshold-from t.json", "not allowed with argument"),
        ("views --drop --inputs asked", "--drop drops all views of a model: leave out their names"),
        ("views", "say which model's views to make"),
        ("reproduce 1 -1", "a row is its place in the job, from 0"),
        ("reproduce 1 first", "a row is its place in the job, from 0"),
    ],
)
def test_arguments_that_are_not_understood_end_with_2_and_say_how_to_write_them(arguments, words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments.split())
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_version_is_described_in_one_line():
    row = ModelVersion(
        name="m",
        version=3,
        sha256="0123456789abcdef" * 4,
        card={"task": "binary", "features": [{}, {}]},
        scorer={"kind": "trees", "max_abs_diff": 1.5e-16, "rows_checked": 1, "decisions_differ": 0},
    )
    assert describe(row, ["champion", "spare"]) == (
        "m@3 (champion, spare): binary, 2 features, sha256 0123456789ab…; scored by trees, 1 row checked against the "
        "pipeline (largest difference 1.5e-16, decisions that differ: 0), speed not measured"
    )
    row.scorer = {**row.scorer, "max_abs_diff": None, "rows_checked": 4096, "one_row_us": 35.4, "rows_per_s": 1e6}
    assert describe(row).endswith(
        "scored by trees, 4,096 rows checked against the pipeline (decisions that differ: 0), 35 us a row, "
        "1,000,000 rows/s"
    )


def test_reference_data_are_described_in_one_line_without_their_rows():
    stored = StoredSet(
        model="m",
        version=1,
        filename="rows.csv",
        sha256="0123456789abcdef" * 4,
        byte_count=10,
        delimiter=";",
        encoding="utf-8",
        decimal=",",
        target="left",
        row_count=1200,
        skipped_count=3,
        created_at=datetime(2026, 11, 1, 9, 30, tzinfo=UTC),
        thousands=" ",
        currency="",
        options=None,
    )
    line = describe_set(stored)
    assert line.startswith("m: 1,200 rows, 3 left out, target left, from rows.csv (sha256 0123456789ab…, utf-8, ")
    assert "delimiter semicolon, decimal comma, thousands space" in line
    assert line.endswith("loaded 2026-11-01 09:30 UTC against m@1.")

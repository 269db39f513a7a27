"""The command `guichet` and a scripted service: what it prints, and its exit codes."""

import io
import json
import os
import re
import shlex
import subprocess
import sys
import threading

import httpx2
import pytest
from guichet import command
from guichet.command.parser import make_parser
from guichet.command.terminal.bar import Bar
from guichet.command.terminal.console import Console, clean, duration, size

from tests.client.conftest import environment, run_command
from tests.client.scripted import JOB_ID, Script, answer, event, events, job, problem, result

RETRY = {"retry": f"/jobs/{JOB_ID}/retry"}
CSV_FIELDS = {
    "filename": "rows.csv",
    "delimiter": ";",
    "encoding": "cp1252",
    "decimal": ",",
    "id_column": None,
    "extra_columns": [],
    "bytes": 123,
    "max_error_rate": None,
}


@pytest.fixture
def guichet(monkeypatch, pauses, capsys):
    """Run the command against a script; return exit code, stdout, stderr."""
    monkeypatch.setattr("guichet.command.terminal.following.time.sleep", pauses.append)

    def run(script: Script, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(command, "_client", lambda options: script.client())
        code = command.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert script.steps == []
        return code, out, err

    return run


@pytest.fixture
def row(tmp_path):
    path = tmp_path / "row.json"
    path.write_text('{"age": 41}')
    return path


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("age\n41\n42\n")
    return path


def csv_job(status: str, **more: object) -> dict[str, object]:
    return job(status, "csv", total=10, csv=CSV_FIELDS, **more)


# ── predict ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_score_is_printed_for_people_and_for_programs(guichet, row):
    code, out, err = guichet(Script(answer(200, result())), "predict", row)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "prediction   1 (Part)",
        "probability  0.7500 (threshold 0.5)",
        "model        attrition@1",
        f"job          {JOB_ID}",
    ]
    code, out, err = guichet(Script(answer(200, result())), "predict", row, "--json")
    assert json.loads(out) == result()
    multiclass = result(prediction="a", label="a", threshold=None, probabilities={"a": 0.75, "b": 0.25})
    _, out, _ = guichet(Script(answer(200, multiclass)), "predict", row)
    assert "prediction   a\n" in out
    assert "  b  0.2500\n" in out


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ('{"age": 41}', {"features": {"age": 41}}),
        ('{"features": {"age": 41}}', {"features": {"age": 41}}),
        ('\ufeff{"features": {"age": 41}, "timeout": 3}', {"features": {"age": 41}, "timeout": 3}),
        ('{"features": {"age": 41}, "model": "b"}', {"features": {"age": 41}, "model": "b"}),
        ("{}", {"features": {}}),
    ],
)
def test_row_is_taken_alone_or_wrapped(guichet, row, text, sent):
    row.write_text(text, encoding="utf-8")
    script = Script(answer(200, result()))
    assert guichet(script, "predict", row)[0] == 0
    assert json.loads(script.bodies[0]) == sent


def test_model_of_the_command_line_comes_first(guichet, row):
    row.write_text('{"features": {"age": 41}, "model": "b"}')
    script = Script(answer(200, result()))
    guichet(script, "predict", row, "--model", "churn@2")
    assert json.loads(script.bodies[0]) == {"features": {"age": 41}, "model": "churn", "version": 2}
    script = Script(answer(200, result()))
    guichet(script, "predict", row, "--model", "churn@shadow")
    assert json.loads(script.bodies[0]) == {"features": {"age": 41}, "model": "churn@shadow"}
    for wrong in ("churn@", "@2", "@"):
        code, _, err = guichet(Script(), "predict", row, "--model", wrong)
        assert code == 2
        assert "such as churn@2" in err


def test_list_is_a_batch_and_its_bad_rows_are_told(guichet, row):
    items = [
        {"index": 0, "status": "succeeded", "prediction": 1, "label": "Part", "probability": 0.75, "threshold": 0.5},
        {"index": 1, "status": "failed", "errors": [{"pointer": "/age", "code": "missing", "message": "is missing"}]},
    ]
    batch = {**result(), "n_rows": 2, "has_failures": True, "items": items}
    for text in ('[{"age": 41}, {"features": {}}]', '{"rows": [{"age": 41}, {}], "on_error": "continue"}'):
        row.write_text(text)
        script = Script(answer(200, batch))
        code, out, err = guichet(script, "predict", row)
        assert code == 3
        assert script.requests[0].url.path == "/prefix/predict_batch"
        assert json.loads(script.bodies[0])["rows"] == [{"age": 41}, {}]
    assert out.splitlines() == [
        "ROW  PREDICTION  LABEL  PROBABILITY  ERRORS",
        "  1           1  Part        0.7500",
        "  2                                  /age: is missing",
    ]
    assert err == f"model attrition@1, job {JOB_ID}\n"
    batch["has_failures"] = False
    assert guichet(Script(answer(200, batch)), "predict", row, "--json")[0] == 0


def test_ticket_is_printed_alone(guichet, row):
    code, out, err = guichet(Script(answer(202, job())), "predict", "--async", row)
    assert (code, out) == (0, f"{JOB_ID}\n")
    assert f"guichet wait {JOB_ID}" in err
    row.write_text("[{}]")
    code, out, _ = guichet(Script(answer(202, job(kind="batch"))), "predict", "--async", "--json", row)
    assert json.loads(out)["kind"] == "batch"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON: Expecting"),
        ('{"age": NaN}', "NaN is not a JSON value, write null"),
        ('{"age": 1e999}', "JSON has no infinity"),
        ('{"age": 1, "age": 2}', "the same key twice"),
        ("41", "neither an object with features nor a list"),
        ('{"features": {}, "modle": "x"}', "modle: not a field"),
        ('{"features": {}, "on_error": "abort"}', "on_error: not a field"),
        ("[" * 100_000, "nested too deeply"),
        ("\xff\xfe\xff", "is not JSON"),
    ],
)
def test_file_that_holds_no_row_is_told_before_anything_is_sent(guichet, row, text, message):
    row.write_bytes(text.encode("latin-1"))
    code, out, err = guichet(Script(), "predict", row)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_file_that_is_not_there_is_told(guichet, tmp_path):
    code, _, err = guichet(Script(), "predict", tmp_path / "none.json")
    assert (code, err) == (2, f"guichet: {tmp_path}/none.json: No such file or directory.\n")


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, 2), (401, 4), (403, 4), (404, 2), (409, 2), (413, 2), (415, 2), (422, 2), (429, 5), (500, 5), (503, 5)],
)
def test_exit_code_tells_what_kind_of_refusal_it_was(guichet, row, status, code):
    refused = problem(status, "x", "It is so.", errors=[{"pointer": "/features/age", "code": "c", "message": "is odd"}])
    steps = [refused] * (6 if status in (429, 503) else 1)
    status_of_exit, out, err = guichet(Script(*steps), "predict", row)
    assert (status_of_exit, out) == (code, "")
    assert err.splitlines()[:2] == ["guichet: It is so.", "  /features/age: is odd"]
    assert ("(request r)" in err) == (status >= 500)


def test_job_that_failed_is_told(guichet, row):
    failed = job("failed", error={"code": "model_failed", "message": "the model raised"})
    code, _, err = guichet(Script(problem(500, "model_failed", job_id=JOB_ID), answer(200, failed)), "predict", row)
    assert (code, err) == (1, f"guichet: The job {JOB_ID} failed: the model raised.\n")


@pytest.mark.parametrize(
    ("status", "verb"), [("failed", "failed"), ("expired", "expired"), ("canceled", "was canceled")]
)
def test_job_that_was_followed_ends_with_a_sentence(guichet, status, verb):
    error = {"code": "timeout", "message": "it took too long"}
    ended = answer(200, job(status, error=error))
    code, _, err = guichet(Script(answer(202, job("queued")), ended, ended), "reproduce", JOB_ID)
    assert (code, err.splitlines()[-1]) == (1, f"guichet: The job {JOB_ID} {verb}: it took too long.")


def test_service_that_is_not_there_is_told(row):
    done = run_command("predict", row, "--retries", "0", "--url", "http://127.0.0.1:9")
    assert done.returncode == 5
    assert done.stderr.startswith("guichet: Nobody answers at http://127.0.0.1:9 (")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--url", "nonsense", "jobs"],
        ["jobs", "--api-key", "clé"],
        ["jobs", "--limit", "many"],
        ["jobs", "--status", "happy"],
        ["wait", JOB_ID, "--for", "-1"],
        ["csv", "x", "--max-error-rate", "5"],
        ["fly"],
        [],
    ],
)
def test_wrong_usage_is_told(arguments):
    done = run_command(*arguments)
    assert done.returncode == 2
    assert done.stderr
    assert done.stdout == ""


def test_key_is_shown_nowhere(row):
    done = run_command("predict", row, "--retries", "0", url="http://127.0.0.1:9", GUICHET_API_KEY="guichet_secret")
    assert "secret" not in done.stdout + done.stderr


def test_help_tells_the_exit_codes_and_every_command_has_its_own(capsys):
    assert "130  interrupted" in run_command("--help").stdout
    for name in command._COMMANDS:
        with pytest.raises(SystemExit) as ended:
            command.main([name, "--help"])
        assert ended.value.code == 0
        assert "exit codes:" in capsys.readouterr().out
    assert re.fullmatch(r"guichet \d+\.\d+\.\d+\n", run_command("--version").stdout)


def test_options_of_the_service_hold_before_and_after_the_command():
    for words in (["--url", "http://a", "jobs"], ["jobs", "--url", "http://a"]):
        assert make_parser().parse_args(words).url == "http://a"
    assert not hasattr(make_parser().parse_args(["jobs"]), "url")


# ── csv ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_file_goes_up_and_its_scores_and_errors_come_down(guichet, rows, tmp_path):
    script = Script(
        answer(202, csv_job("queued")),
        events(event(1, "accepted"), event(2, "progress", done=5), event(3, "finished", done=10, status="succeeded")),
        answer(200, csv_job("succeeded", failed=2)),
        httpx2.Response(200, content=b"scored"),
        httpx2.Response(200, content=b"wrong"),
    )
    code, out, err = guichet(
        script, "csv", rows, "-o", tmp_path / "out.csv", "--errors", tmp_path / "err.csv", "--join",
        "--delimiter", "semicolon", "--decimal", ",", "--strict", "--max-error-rate", "0.5", "--model", "attrition@1",
    )  # fmt: skip
    assert (code, out) == (3, "")
    assert dict(script.requests[0].url.params) == {
        "model": "attrition",
        "version": "1",
        "delimiter": "semicolon",
        "decimal": ",",
        "strict": "true",
        "max_error_rate": "0.5",
    }
    assert [request.url.path.rpartition("/")[2] for request in script.requests][3:] == ["output.csv", "errors.csv"]
    assert dict(script.requests[3].url.params) == {"join": "true"}
    assert dict(script.requests[4].url.params) == {}
    assert (tmp_path / "out.csv").read_text() == "scored"
    assert (tmp_path / "err.csv").read_text() == "wrong"
    assert f"Accepted: 10 rows, attrition@1, job {JOB_ID}\n" in err
    assert f"10 rows: 8 scored, 2 with errors. Written to {tmp_path}/out.csv\n" in err
    assert "running: 0/10 rows, 5 rows/s, ETA 0:01\n" in err
    assert "\x1b" not in err


def test_job_is_polled_where_events_do_not_come_through(guichet, rows, tmp_path):
    script = Script(
        answer(202, csv_job("queued")),
        problem(404, "not_found"),
        answer(200, csv_job("running")),
        answer(200, csv_job("succeeded")),
        httpx2.Response(200, content=b"PAR1"),
    )
    code, _, err = guichet(script, "csv", rows, "-o", tmp_path / "out.parquet")
    assert code == 0
    assert dict(script.requests[4].url.params) == {"format": "parquet"}
    assert "10 rows: 10 scored, 0 with errors" in err


def test_job_is_gone_on_with_by_its_id(guichet, tmp_path):
    script = Script(answer(200, csv_job("succeeded")), httpx2.Response(200, content=b"x"))
    code, out, _ = guichet(script, "csv", "--job", JOB_ID, "-o", tmp_path / "out.csv", "--json")
    assert code == 0
    assert json.loads(out)["id"] == JOB_ID
    code, _, err = guichet(Script(answer(200, job())), "csv", "--job", JOB_ID, "-o", tmp_path / "out.csv")
    assert code == 2
    assert f"guichet wait {JOB_ID}" in err


def test_job_that_is_not_waited_for_is_a_ticket(guichet, rows):
    code, out, err = guichet(Script(answer(202, csv_job("queued"))), "csv", rows, "--no-wait")
    assert (code, out) == (0, f"{JOB_ID}\n")
    assert f"guichet csv --job {JOB_ID} -o scored.csv" in err
    code, out, _ = guichet(Script(answer(202, csv_job("queued"))), "csv", rows, "--no-wait", "--json")
    assert json.loads(out)["status"] == "queued"


@pytest.mark.parametrize(
    "arguments",
    [
        ("replay", "churn@2"),
        ("train", "FILE", "--target", "age"),
        ("register", "FILE", "--name", "churn"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_job_of_any_command_can_be_left_with_its_id(guichet, rows, arguments):
    arguments = [rows if argument == "FILE" else argument for argument in arguments]
    code, out, err = guichet(Script(answer(202, job(kind=arguments[0]))), *arguments, "--no-wait")
    assert (code, out) == (0, f"{JOB_ID}\n")
    assert f"To see its result: guichet wait {JOB_ID}" in err
    code, out, _ = guichet(Script(answer(202, job(kind=arguments[0]))), *arguments, "--no-wait", "--json")
    assert (code, json.loads(out)["id"]) == (0, JOB_ID)


def test_job_that_failed_gives_its_errors_and_says_how_to_go_on(guichet, rows, tmp_path):
    message = "more than 5.00% of the rows failed: errors.csv says why"
    failed = csv_job("failed", failed=6, links=RETRY, error={"code": "too_many_errors", "message": message})
    script = Script(
        answer(202, csv_job("queued")),
        events(event(1, "finished", status="failed")),
        answer(200, failed),
        httpx2.Response(200, content=b"wrong"),
    )
    code, _, err = guichet(script, "csv", rows, "-o", tmp_path / "out.csv", "--errors", tmp_path / "err.csv")
    assert code == 1
    assert dict(script.requests[3].url.params) == {"partial": "true"}
    why = f"guichet: The job {JOB_ID} failed: more than 5.00% of the rows failed"
    assert f"{why}: {tmp_path}/err.csv says why.\n" in err
    assert "--partial" in err
    assert f"To score the rest, without the limit: guichet retry {JOB_ID}\n" in err
    assert not (tmp_path / "out.csv").exists()
    code, _, err = guichet(Script(answer(200, failed)), "csv", "--job", JOB_ID, "-o", "out.csv", "--url", "http://x")
    assert code == 1
    assert f"{why}.\n" in err
    assert f"guichet retry {JOB_ID} --url http://x\n" in err
    assert f"guichet csv --job {JOB_ID} -o out.csv --url http://x --errors errors.csv\n" in err
    code, _, err = guichet(Script(answer(200, failed)), "wait", JOB_ID)
    assert "says why" not in err
    assert f"To see the faults: guichet csv --job {JOB_ID} -o scored.csv --errors errors.csv\n" in err


def test_job_that_has_nothing_left_is_not_advised_to_be_retried(guichet, tmp_path):
    failed = csv_job("failed", failed=10, error={"code": "no_row_scored", "message": "no row could be scored"})
    code, _, err = guichet(Script(answer(200, failed)), "csv", "--job", JOB_ID, "-o", tmp_path / "out.csv")
    assert code == 1
    assert "retry" not in err
    canceled = csv_job("canceled", links=RETRY)
    _, _, err = guichet(Script(answer(200, canceled)), "csv", "--job", JOB_ID, "-o", tmp_path / "out.csv")
    assert f"To score the rest: guichet retry {JOB_ID}\n" in err


def test_rows_go_to_stdout(guichet, rows, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = "age,é\n41,1\n"
    script = Script(answer(200, csv_job("succeeded")), httpx2.Response(200, content=content.encode()))
    code, out, err = guichet(script, "csv", "--job", JOB_ID, "-o", "-")
    assert (code, out) == (0, content)
    assert err == "10 rows: 10 scored, 0 with errors. Written to stdout\n"
    script = Script(
        answer(200, csv_job("succeeded", failed=1)),
        httpx2.Response(200, content=b"x"),
        httpx2.Response(200, content=b"y"),
    )
    code, out, err = guichet(script, "csv", "--job", JOB_ID, "-o", "out.csv", "--errors", "-")
    assert (code, out) == (3, "y")
    assert err == "10 rows: 9 scored, 1 with an error. Written to out.csv\nErrors written to stdout\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "rows.csv"]


def test_reader_of_the_rows_that_has_had_enough_is_no_error(monkeypatch, guichet, tmp_path, capsys):
    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setattr(sys, "stdout", os.fdopen(writing, "w"))
    script = Script(answer(200, csv_job("succeeded")), httpx2.Response(200, content=b"x" * 1_000_000))
    monkeypatch.setattr(command, "_client", lambda options: script.client())
    assert command.main(["csv", "--job", JOB_ID, "-o", "-"]) == 0
    sys.stdout.close()
    assert capsys.readouterr().err == ""


def test_errors_file_without_errors_is_written_and_told(guichet, tmp_path):
    script = Script(
        answer(200, csv_job("succeeded")), httpx2.Response(200, content=b"x"), httpx2.Response(200, content=b"row_no\n")
    )
    place = tmp_path / "err.csv"
    code, _, err = guichet(script, "csv", "--job", JOB_ID, "-o", tmp_path / "out.csv", "--errors", place)
    assert code == 0
    assert place.read_text() == "row_no\n"
    assert f"No errors: {place} has only its header\n" in err


@pytest.mark.parametrize(("status", "code"), [("running", 0), ("canceled", 1), ("succeeded", 0)])
def test_what_is_done_so_far_is_written(guichet, tmp_path, status, code):
    script = Script(answer(200, csv_job(status)), httpx2.Response(200, content=b"half"))
    exit_code, _, err = guichet(script, "csv", "--job", JOB_ID, "-o", tmp_path / "out.csv", "--partial")
    assert exit_code == code
    assert dict(script.requests[1].url.params) == {"partial": "true"}
    assert (tmp_path / "out.csv").read_text() == "half"
    assert "Written to" in err


def interrupt(request: httpx2.Request) -> httpx2.Response:
    raise KeyboardInterrupt


def test_interrupted_job_goes_on_and_the_command_that_goes_on_is_told(guichet, rows, tmp_path):
    place = tmp_path / "my scores.csv"
    script = Script(answer(202, csv_job("queued")), interrupt)
    code, _, err = guichet(script, "csv", rows, "-o", place, "--join", "--url", "http://x:1", "--api-key", "hush")
    assert code == 130
    advice = next(line for line in err.splitlines() if "--job" in line).partition("with it: ")[2]
    words = ["guichet", "csv", "--job", JOB_ID, "-o", str(place), "--join", "--url", "http://x:1"]
    assert shlex.split(advice) == words
    assert "cancel" not in [request.url.path.rpartition("/")[2] for request in script.requests]
    parsed = make_parser().parse_args(words[1:])
    assert (parsed.job, parsed.output) == (JOB_ID, str(place))


def test_interrupted_upload_is_told(guichet, rows, tmp_path):
    code, _, err = guichet(Script(interrupt), "csv", rows, "-o", tmp_path / "out.csv")
    assert code == 130
    assert "a file that did not arrive in full is not stored" in err


def test_service_that_goes_away_leaves_a_job_to_go_on_with(guichet, rows, tmp_path):
    refused = [httpx2.ConnectError("refused")] * 6
    script = Script(answer(202, csv_job("queued")), *refused, *refused)
    code, _, err = guichet(script, "csv", rows, "-o", tmp_path / "out.csv")
    assert code == 5
    assert f"The job is kept. To go on with it: guichet csv --job {JOB_ID}" in err


def test_report_is_printed(guichet, rows):
    report = {
        "rows": 1200,
        "valid": 1170,
        "invalid": 30,
        "format": {"delimiter": "\t", "encoding": "utf-8", "decimal": ".", "id_column": None},
        "columns": {"features": ["age"], "missing": ["sexe"], "extra": ["nom", "ville"]},
        "errors": [{"row_no": n, "column": "", "code": "columns", "message": "has 2 cells"} for n in range(1, 31)],
        "error_count": 1200,
        "errors_by_code": {"columns": 1200},
    }
    script = Script(answer(200, report))
    code, out, _ = guichet(script, "csv", rows, "--validate", "--gzip")
    assert code == 3
    lines = out.splitlines()
    assert lines[:5] == [
        "1,200 rows: 1,170 valid, 30 with errors",
        "format: delimiter tab, encoding utf-8, decimal mark point",
        "missing columns: sexe",
        "extra columns: nom, ville",
        "row 1, whole row: has 2 cells",
    ]
    assert lines[-1] == "... of 1,200 errors (columns 1,200)"
    assert len(lines) == 25
    good = report | {"invalid": 0, "errors": [], "error_count": 0}
    read = report["format"] | {"notices": ["The rows are those of the sheet 'May'."]}
    script = Script(answer(200, good | {"format": read}))
    code, out, _ = guichet(script, "csv", rows, "--validate", "--sheet", "May")
    assert code == 0
    assert "The rows are those of the sheet 'May'." in out.splitlines()
    assert dict(script.requests[0].url.params)["sheet"] == "May"
    code, out, _ = guichet(Script(answer(200, good)), "csv", rows, "--validate", "--json")
    assert (code, json.loads(out)) == (0, good)


def test_places_are_checked_before_anything_is_sent(guichet, rows, tmp_path):
    for arguments, message in [
        ([rows], "Say where to write"),
        (["-o", "x"], "Give either a CSV file or --job"),
        ([rows, "--job", JOB_ID, "-o", "x"], "Give either a CSV file or --job"),
        (["--job", JOB_ID, "--validate"], "go with a file"),
        ([rows, "--partial", "-o", "x"], "--partial goes with --job"),
        ([rows, "-o", tmp_path], "is not a file"),
        ([rows, "-o", "/dev/null"], "is not a file"),
        ([rows, "-o", tmp_path / "none" / "x.csv"], "There is no folder"),
        ([rows, "-o", rows], "is the input"),
        ([rows, "-o", "x.XLSX"], "Give a name that ends in .csv, which every spreadsheet opens, or in .parquet."),
        ([rows, "-o", "x.xls"], "files ending in .xls are not written"),
        ([rows, "-o", "x.ods"], "files ending in .ods are not written"),
        ([rows, "-o", "x.csv.gz"], "and compress that file afterwards"),
        ([rows, "-o", "x.zip", "--format", "parquet"], "and compress that file afterwards"),
        ([rows, "-o", "x.csv", "--errors", "e.xlsx"], "files ending in .xlsx are not written"),
        ([rows, "-o", "x.csv", "--errors", "e.parquet"], "errors are written as CSV only"),
        ([rows, "-o", "-", "--json"], "both write to stdout"),
        ([rows, "-o", "-", "--errors", "-"], "need two places"),
        ([rows, "-o", tmp_path / "a", "--errors", tmp_path / "a"], "need two files"),
        ([tmp_path / "none.csv", "-o", tmp_path / "a"], "No such file"),
        (["--job", "nonsense", "-o", tmp_path / "a"], "is not a job id"),
    ]:
        code, _, err = guichet(Script(), "csv", *arguments)
        assert code == 2, arguments
        assert message in err


# ── explain ──────────────────────────────────────────────────────────────────────────────────────────────────────


def explanation(**more: object) -> dict[str, object]:
    fields = {"method": "linear", "scale": "log_odds", "base_value": -1.25, "value": 0.5, "contributions": []}
    return result(**fields, top=["age is 41: it raises the log-odds of Part by 1.75."], **more)


def test_row_is_explained_in_words_and_for_programs(guichet, row):
    code, out, err = guichet(Script(answer(200, explanation())), "explain", row)
    assert (code, err) == (0, "")
    assert out.splitlines()[:4] == [
        "value        0.5 (log_odds of Part)",
        "base value   -1.25",
        "probability  0.7500",
        "  age is 41: it raises the log-odds of Part by 1.75.",
    ]
    script = Script(answer(200, explanation()))
    code, out, _ = guichet(script, "explain", "--job", JOB_ID, "--row", "2", "--json")
    assert (code, json.loads(out)["method"]) == (0, "linear")
    assert json.loads(script.bodies[0]) == {"job_id": JOB_ID, "row": 2}


def test_every_row_of_a_job_is_explained_into_a_file(guichet, tmp_path):
    done = job("succeeded", "explain_batch", total=10, failed=1, explains=JOB_ID)
    lines = httpx2.Response(200, content=b"row_no,age\n1,0.5\n")
    script = Script(
        answer(200, csv_job("succeeded")),
        answer(202, job("queued", "explain_batch", total=10, explains=JOB_ID)),
        events(event(1, "finished", done=10, status="succeeded")),
        answer(200, done),
        lines,
    )
    code, _, err = guichet(script, "explain", "--job", JOB_ID, "-o", tmp_path / "why.csv")
    assert code == 3
    assert (tmp_path / "why.csv").read_bytes() == b"row_no,age\n1,0.5\n"
    assert "10 rows: 9 explained, 1 with " in err
    assert [request.method for request in script.requests[:2]] == ["GET", "POST"]
    assert script.requests[1].url.path.endswith(f"/jobs/{JOB_ID}/explain")
    script = Script(answer(200, done), lines)  # it explains already, and is only read
    code, _, _ = guichet(script, "explain", "--job", JOB_ID, "-o", tmp_path / "again.csv")
    assert code == 3
    assert (tmp_path / "again.csv").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Give either a JSON file with a row, or --job ID."),
        (("--job", JOB_ID), "Say where to write the explanations"),
        (("--job", JOB_ID, "--row", "1", "-o", "why.csv"), "one row is printed"),
        (("--job", JOB_ID, "-o", "why.csv", "--model", "churn"), "by the version that scored it"),
        (("--job", JOB_ID, "-o", "why.xlsx"), "files ending in .xlsx are not written"),
    ],
)
def test_explain_says_what_does_not_go_together(guichet, words, message):
    code, _, err = guichet(Script(), "explain", *words)
    assert code == 2
    assert message in err


# ── jobs, wait, cancel, retry, models ────────────────────────────────────────────────────────────────────────────


def test_jobs_are_a_table(guichet, monkeypatch):
    page = {"items": [csv_job("succeeded", failed=2), job("queued") | {"model": "\x1b[31mred"}], "next": None}
    script = Script(answer(200, page))
    code, out, _ = guichet(script, "jobs", "--status", "queued", "--model", "m", "--limit", "5")
    assert code == 0
    header, first, second = out.splitlines()
    assert header.split() == ["ID", "STATUS", "KIND", "MODEL", "ROWS", "ERRORS", "CREATED", "FILE"]
    assert first.endswith("rows.csv")
    assert "\x1b" not in second
    assert dict(script.requests[0].url.params) == {"limit": "5", "status": "queued", "model": "m"}
    _, out, _ = guichet(Script(answer(200, page | {"next": "/jobs?x=1"})), "jobs", "--json", "--limit", "1")
    assert [each["id"] for each in json.loads(out)] == [JOB_ID]
    assert guichet(Script(answer(200, {"items": [], "next": None})), "jobs")[1:] == ("", "There are no jobs yet.\n")


def test_wait_prints_what_the_job_came_to(guichet):
    ended = job("succeeded", result=result())
    code, out, _ = guichet(Script(answer(200, job()), answer(200, ended)), "wait", JOB_ID)
    assert code == 0
    assert out.startswith("prediction   1 (Part)\n")
    assert guichet(Script(answer(200, job("canceled"))), "wait", JOB_ID)[0] == 1
    code, out, err = guichet(Script(answer(200, job("expired"))), "wait", JOB_ID, "--json")
    assert (code, json.loads(out)["status"]) == (1, "expired")
    code, out, err = guichet(Script(answer(200, csv_job("succeeded", failed=1))), "wait", JOB_ID)
    assert (code, out) == (3, "10 rows: 9 scored, 1 with an error\n")
    assert f"guichet csv --job {JOB_ID} -o scored.csv" in err


def test_wait_reads_the_rows_of_a_batch(guichet):
    script = Script(
        answer(200, job("running", "batch")),
        events(event(1, "finished", done=10)),
        answer(200, job("succeeded", "batch")),
        answer(200, {**result(), "has_failures": False, "items": [{"index": 0, "status": "succeeded"}]}),
    )
    code, out, _ = guichet(script, "wait", JOB_ID)
    assert code == 0
    assert out.splitlines()[1].split() == ["1"]


def test_wait_gives_up_when_told_so(guichet):
    def slow(request: httpx2.Request) -> httpx2.Response:
        threading.Event().wait(0.02)
        return answer(200, csv_job("running"))

    code, _, err = guichet(Script(answer(200, csv_job("running")), slow), "wait", JOB_ID, "--for", "0.01")
    assert code == 5
    assert "it goes on" in err


def test_cancel_and_retry_say_what_became_of_the_job(guichet):
    code, _, err = guichet(Script(answer(200, job()), answer(200, job("canceled"))), "cancel", JOB_ID)
    assert (code, err) == (0, f"The job {JOB_ID} is canceled.\n")
    code, _, err = guichet(Script(answer(200, job()), answer(202, job("running"))), "cancel", JOB_ID)
    assert "as soon as its worker sees it" in err
    code, out, _ = guichet(Script(answer(200, job()), answer(202, job("running"))), "cancel", JOB_ID, "--json")
    assert json.loads(out)["status"] == "running"
    code, _, err = guichet(Script(answer(200, csv_job("failed")), answer(202, csv_job("queued"))), "retry", JOB_ID)
    assert code == 0
    assert f"guichet csv --job {JOB_ID}" in err
    code, out, _ = guichet(
        Script(answer(200, csv_job("failed")), answer(202, csv_job("queued"))), "retry", JOB_ID, "--json"
    )
    assert json.loads(out)["status"] == "queued"
    script = Script(
        answer(200, csv_job("succeeded")),
        problem(409, "conflict", "Nothing is left."),
        answer(200, csv_job("succeeded")),
    )
    assert guichet(script, "retry", JOB_ID)[0] == 2


def test_retry_of_a_job_that_is_being_canceled_says_that_it_waits(guichet):
    pending = csv_job("running", cancel_requested_at="2026-01-02T03:04:05Z")
    script = Script(
        answer(200, pending),
        problem(409, "conflict"),
        answer(200, pending),
        answer(200, csv_job("canceled", links=RETRY)),
        answer(202, csv_job("queued")),
    )
    code, _, err = guichet(script, "retry", JOB_ID)
    assert code == 0
    assert err.splitlines()[0].endswith("is still being canceled: it is taken up again when that is done.")
    assert f"The job {JOB_ID} is queued." in err


def test_job_is_erased_with_those_that_explained_it(guichet):
    body = {"id": JOB_ID, "erased": [JOB_ID, "01a1fc6e-b8ef-76d6-a1a8-7ba162c421cc"], "rows": 3}
    script = Script(answer(200, job("succeeded", total=3)), answer(200, body))
    code, out, err = guichet(script, "erase", JOB_ID, "--reason", "asked for by the person")
    assert (code, err) == (0, "")
    assert out == f"The job {JOB_ID} is erased (3 rows), with 1 that were made of its rows.\n"
    assert script.requests[1].method == "DELETE"
    assert script.requests[1].url.params["reason"] == "asked for by the person"
    script = Script(answer(200, job("succeeded")), answer(200, body))
    code, out, _ = guichet(script, "erase", JOB_ID, "--reason", "r", "--json")
    assert json.loads(out) == body


def test_erasure_whose_answer_was_lost_is_done(guichet):
    script = Script(answer(200, job("succeeded")), httpx2.ReadError("reset"), problem(410, "gone", "It was erased."))
    code, out, _ = guichet(script, "erase", JOB_ID, "--reason", "r")
    assert (code, out) == (0, f"The job {JOB_ID} is erased (1 row).\n")


@pytest.mark.parametrize(("status", "code"), [(404, "not_found"), (410, "gone"), (403, "forbidden")])
def test_job_that_cannot_be_erased_is_refused(guichet, status, code):
    exit_code, out, err = guichet(Script(problem(status, code, "It is so.")), "erase", JOB_ID, "--reason", "r")
    assert (exit_code, out, err) == (4 if status == 403 else 2, "", "guichet: It is so.\n")
    running = Script(answer(200, job("running")), problem(409, "conflict", "Cancel it.", job_id=JOB_ID))
    assert guichet(running, "erase", JOB_ID, "--reason", "r")[0] == 2


def test_erasure_needs_a_reason(guichet):
    with pytest.raises(SystemExit) as ended:
        guichet(Script(), "erase", JOB_ID)
    assert ended.value.code == 2


def test_another_server_is_told(guichet):
    code, _, err = guichet(Script(httpx2.Response(404, text="<html>")), "models")
    assert code == 5
    assert err == "guichet: The answer (404, text/plain) does not look like that of a Guichet service: check the URL.\n"


def test_sentence_is_printed_once(guichet, row):
    faults = [{"pointer": "", "code": "c", "message": "It is so."}]
    assert guichet(Script(problem(422, "x", errors=faults)), "predict", row)[2] == "guichet: It is so.\n"


def test_models_are_a_table(guichet):
    models = {
        "items": [
            {
                "model": "attrition",
                "description": "Who leaves",
                "task": "binary",
                "versions": [1, 2],
                "aliases": {"champion": 2},
                "is_default": True,
            }
        ]
    }
    code, out, _ = guichet(Script(answer(200, models)), "models")
    assert code == 0
    assert out.splitlines()[1].split() == ["attrition", "(default)", "binary", "@2", "2", "Who", "leaves"]
    assert json.loads(guichet(Script(answer(200, models)), "models", "--json")[1]) == models["items"]


# ── the terminal ─────────────────────────────────────────────────────────────────────────────────────────────────


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bar_moves_on_one_line_and_is_cleared(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    times = iter([0.0, 0.05, 0.2, 0.3, 0.31])
    monkeypatch.setattr("guichet.command.terminal.bar.time.monotonic", lambda: next(times))
    with Bar(Console(err=screen)) as bar:
        bar.show("running", 0, 10, "0/10 rows")
        bar.show("running", 1, 10, "too soon")
        bar.show("running", 5, 10, "5/10 rows")
        bar.show("running", 5, 10, "5/10 rows")
        bar.show("running", 10, 10, "10/10 rows")
    drawn = screen.getvalue().split("\r\x1b[K")
    assert drawn == [
        "",
        f"running   0% {'-' * 30} 0/10 rows",
        f"running  50% {'#' * 15}{'-' * 15} 5/10 rows",
        f"running 100% {'#' * 30} 10/10 rows",
        "",
    ]


def test_bar_of_one_file_is_gone_before_the_next_one(monkeypatch, guichet, tmp_path):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(Console, "is_terminal", True)

    def errors(request: httpx2.Request) -> httpx2.Response:
        assert sys.stderr.getvalue().endswith("1 B of 1 B\r\x1b[K")
        return httpx2.Response(200, content=b"y")

    script = Script(answer(200, csv_job("succeeded", failed=1)), httpx2.Response(200, content=b"x"), errors)
    monkeypatch.setattr(sys, "stderr", Terminal())
    guichet(script, "csv", "--job", JOB_ID, "-o", tmp_path / "out.csv", "--errors", tmp_path / "err.csv")
    assert "reading errors 100%" in sys.stderr.getvalue()


def test_bar_fits_a_narrow_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(Console, "width", 20)
    screen = Terminal()
    Bar(Console(err=screen)).show("running", 1, None, "1/2 rows and a long story")
    assert len(screen.getvalue().removeprefix("\r\x1b[K")) == 19


def test_plain_lines_come_now_and_then(monkeypatch):
    for terminal in (io.StringIO(), Terminal()):
        monkeypatch.setenv("TERM", "dumb")
        times = iter([0.0, 4.0, 5.5, 5.6])
        monkeypatch.setattr("guichet.command.terminal.bar.time.monotonic", lambda times=times: next(times))
        with Bar(Console(err=terminal)) as bar:
            for done in (0, 3, 5, 10):
                bar.show("running", done, 10, f"{done}/10 rows")
        assert terminal.getvalue() == "running: 0/10 rows\nrunning: 5/10 rows\nrunning: 10/10 rows\n"


def test_words_for_numbers():
    assert [duration(seconds) for seconds in (-1, 0.6, 61, 3725)] == ["0:00", "0:01", "1:01", "1:02:05"]
    assert [size(number) for number in (12, 12_345, 12_345_678, 12e9)] == ["12 B", "12.3 kB", "12.3 MB", "12.0 GB"]
    assert clean("a\x1b[2Jb\r\n") == "a�[2Jb�\n"


def test_letters_that_the_terminal_lacks_are_no_traceback():
    code = "from guichet.command.terminal.console import Console; Console().say('Zoé')"
    env = environment(None, PYTHONIOENCODING="ascii")
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    assert done.stdout == b"Zo\\xe9\n"


def test_reader_that_has_had_enough_is_no_error(monkeypatch, guichet):
    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setattr(sys, "stdout", os.fdopen(writing, "w"))
    script = Script(answer(200, {"items": [job()], "next": None}))
    monkeypatch.setattr(command, "_client", lambda options: script.client())
    assert command.main(["jobs"]) == 0
    sys.stdout.close()


# ── bench ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_bench_writes_quantiles_of_rows_and_batches_and_shows_them(guichet, row, tmp_path):
    items = [{"index": index, "status": "succeeded", **result()} for index in range(2)]
    batch = {**result(), "n_rows": 2, "has_failures": False, "items": items}
    answers = [answer(200, result()) for _ in range(3 + 4)] + [answer(200, batch) for _ in range(3 + 4)]
    output = tmp_path / "perf" / "bench.json"
    code, out, err = guichet(Script(*answers), "bench", "--row", row, "--n", 4, "--batch-size", 2, "-o", output)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["CALL", "predict", "predict_batch"]
    assert str(output) in err
    report = json.loads(output.read_text())
    assert (report["requests"], report["batch_size"]) == (4, 2)
    for name in ("predict", "predict_batch"):
        figures = report[name]
        assert 0 < figures["p50_ms"] <= figures["p95_ms"] <= figures["p99_ms"]
        assert figures["rows_per_second"] > 0
        assert figures["errors"] == 0


def test_bench_without_a_row_sends_the_models_own_example(guichet, tmp_path):
    refused = problem(404, "not_found")
    code, _, err = guichet(Script(refused), "bench", "--model", "nobody", "-o", tmp_path / "bench.json")
    assert code != 0
    assert "guichet:" in err
    assert not (tmp_path / "bench.json").exists()


def test_bench_of_nothing_is_refused_in_words(guichet, row):
    code, _, err = guichet(Script(), "bench", "--row", row, "--n", 0)
    assert code != 0
    assert "at least 1" in err

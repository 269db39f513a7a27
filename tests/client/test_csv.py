"""CSV files from end to end: the client, the command and a running service, on both runtimes."""

import asyncio
import csv
import gzip
import io
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from guichet import AsyncClient, Client, JobFailed, Refused, Unusable

from tests.client.conftest import environment, wait_until
from tests.client.proxy import bad_line
from tests.conftest import ROOT, example_rows
from tests.contracts.helpers import beside, paused
from tests.support.stack import Stack

COUNT = 30


def write(path: Path, rows: list[dict[str, Any]], *, delimiter: str = ",", encoding: str = "utf-8") -> Path:
    """Write rows as a CSV file, with a column `client_id` that the model does not know."""
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, ["client_id", *rows[0]], delimiter=delimiter)
        writer.writeheader()
        writer.writerows({"client_id": f"c{number}", **row} for number, row in enumerate(rows))
    return path


def sample(count: int) -> list[dict[str, Any]]:
    examples = example_rows("attrition")
    return [examples[number % len(examples)] for number in range(count)]


def table(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A file of good rows."""
    return write(tmp_path / "rows.csv", sample(COUNT))


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A file in which the second row is bad."""
    good = sample(3)
    return write(tmp_path / "mixed.csv", [good[0], good[1] | {"age": "old"}, good[2]])


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A file of several chunks."""
    return write(tmp_path / "big.csv", sample(20_000))


def upload_and_cancel(
    guichet: Client, path: Path, *, is_ready: Callable[[Any], bool] = lambda _: True, tries: int = 5
) -> Any:
    """Upload a file and cancel its job as soon as it is ready; again when it was scored before."""
    for _ in range(tries):
        job = guichet.predict_csv(path)
        wait_until(partial(is_ready, job))
        try:
            job.cancel()
        except Refused as refusal:
            if refusal.status != 409:
                raise
        else:
            return job
    pytest.fail("the file was scored before it could be canceled")


# ── in Python ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_row_comes_back_in_order_with_the_score_of_a_single_prediction(guichet, rows, tmp_path):
    job = guichet.predict_csv(rows, model="attrition")
    assert (job.kind, job.counts.total, job.info.csv.filename) == ("csv", COUNT, "rows.csv")
    result = job.result(timeout=60)
    assert (result.counts.succeeded, result.has_failures) == (COUNT, False)
    job.download(tmp_path / "out.csv")
    scored = table(tmp_path / "out.csv")
    assert [line["client_id"] for line in scored] == [f"c{number}" for number in range(COUNT)]
    single = guichet.predict(example_rows("attrition")[0])
    assert float(scored[0]["probability"]) == single.probability
    assert (scored[0]["label"], scored[0]["row_no"], scored[0]["error"]) == (single.label, "1", "")
    assert [path.name for path in tmp_path.iterdir() if ".part" in path.name] == []


def test_bad_row_has_its_error_in_both_files(guichet, mixed, tmp_path):
    job = guichet.predict_csv(mixed).wait(timeout=60)
    assert (job.status, job.counts.succeeded, job.counts.failed) == ("succeeded", 2, 1)
    job.download(tmp_path / "out.csv", join=True)
    job.download(tmp_path / "errors.csv", errors=True)
    scored = table(tmp_path / "out.csv")
    assert [bool(line["error"]) for line in scored] == [False, True, False]
    assert scored[1]["age"] == "old"
    (error,) = table(tmp_path / "errors.csv")
    assert (error["row_no"], error["column"], error["value"]) == ("2", "age", "old")


@pytest.mark.parametrize("form", ["gzip on the way", "gzip file", "open file", "pipe"])
def test_file_arrives_the_same_however_it_is_given(guichet, rows, tmp_path, form):
    if form == "gzip on the way":
        job = guichet.predict_csv(rows, compress=True)
    elif form == "gzip file":
        (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(rows.read_bytes()))
        job = guichet.predict_csv(tmp_path / "rows.csv.gz")
    elif form == "open file":
        job = guichet.predict_csv(io.BytesIO(rows.read_bytes()))
    else:
        with subprocess.Popen(["cat", rows], stdout=subprocess.PIPE) as cat:
            job = guichet.predict_csv(cat.stdout, filename="piped.csv")
        assert job.info.csv.filename == "piped.csv"
    assert job.result(timeout=60).counts.succeeded == COUNT
    assert job.info.csv.bytes == rows.stat().st_size


def test_file_of_a_french_spreadsheet_is_read_as_it_is_written(guichet, tmp_path):
    path = write(tmp_path / "é.csv", sample(3), delimiter=";", encoding="utf-8-sig")
    with path.open("ab") as file:
        file.write(b";" * path.read_bytes().partition(b"\n")[0].count(b";") + b"\r\n")  # as spreadsheets leave behind
    job = guichet.predict_csv(path, delimiter="semicolon", id_column="client_id").wait(timeout=60)
    assert (job.info.csv.delimiter, job.info.csv.id_column, job.info.csv.filename) == (";", "client_id", "é.csv")
    assert job.info.csv.notices == ["1 empty row at the end of the file was left out."]
    job.download(tmp_path / "out.csv")
    assert [line["client_id"] for line in table(tmp_path / "out.csv", ";")] == ["c0", "c1", "c2"]


def test_same_key_gives_the_same_job(guichet, rows):
    first, again = (guichet.predict_csv(rows, idempotency_key="csv-once") for _ in range(2))
    assert first.id == again.id
    with pytest.raises(Refused) as caught:
        guichet.predict_csv(rows, idempotency_key="csv-once", strict=False)
    assert caught.value.code == "idempotency_mismatch"


def test_header_that_does_not_fit_is_refused(guichet, tmp_path):
    (tmp_path / "rows.csv").write_text("age,sexe\n41,1\n")
    with pytest.raises(Refused) as caught:
        guichet.predict_csv(tmp_path / "rows.csv")
    assert (caught.value.status, caught.value.code) == (422, "invalid_row")
    assert any(fault.code == "missing" for fault in caught.value.faults)
    (tmp_path / "rows.csv").write_bytes(b"PK\x03\x04 an Excel file")
    with pytest.raises(Refused) as caught:
        guichet.predict_csv(tmp_path / "rows.csv")
    assert caught.value.status == 415


def test_report_says_what_is_wrong_and_nothing_is_stored(guichet, mixed):
    before = [job.id for job in islice(guichet.jobs(), 1)]
    report = guichet.validate_csv(mixed)
    assert (report.rows, report.valid, report.invalid) == (3, 2, 1)
    assert (report.errors[0].row_no, report.errors[0].column) == (2, "age")
    assert report.columns["extra"] == ["client_id"]
    assert [job.id for job in islice(guichet.jobs(), 1)] == before


def test_file_that_shrinks_while_it_is_sent_is_told(guichet, big):
    with pytest.raises(Unusable, match="became shorter"):
        guichet.predict_csv(big, on_progress=lambda done, total: os.truncate(big, 0))


def test_too_many_bad_rows_fail_the_job(guichet, mixed, tmp_path):
    job = guichet.predict_csv(mixed, max_error_rate=0.1).wait(timeout=60)
    assert job.status == "failed"
    with pytest.raises(JobFailed) as caught:
        job.result()
    assert caught.value.job_id == job.id
    with pytest.raises(JobFailed):
        job.download(tmp_path / "out.csv")
    job.download(tmp_path / "errors.csv", errors=True, partial=True)
    assert len(table(tmp_path / "errors.csv")) == 1


def test_events_tell_the_story_to_its_end(guichet, big):
    job = guichet.predict_csv(big)
    seen = list(job.events())
    assert [seen[0].type, seen[-1].type] == ["accepted", "finished"]
    assert seen[-1].status == "succeeded"
    done = [event.progress.rows_done for event in seen]
    assert done == sorted(done)
    assert done[-1] == 20_000
    numbers = [int(event.id) for event in seen]
    assert numbers == sorted(set(numbers))
    assert [event.id for event in job.events(after=seen[1].id)] == [event.id for event in seen[2:]]


def test_parquet_is_written(guichet, rows, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    guichet.predict_csv(rows).wait(timeout=60).download(tmp_path / "out.parquet", parquet=True)
    written = parquet.read_table(tmp_path / "out.parquet")
    assert written.num_rows == COUNT
    assert written.column("row_no").to_pylist() == list(range(1, COUNT + 1))


@pytest.mark.long
def test_canceled_job_keeps_what_is_done_and_is_taken_up_again(stack: Stack, guichet, big, tmp_path):
    with paused(stack, "bulk") if stack.runtime == "queue" else nullcontext():
        # The only process of the sync runtime cannot be held.
        job = upload_and_cancel(guichet, big, tries=1 if stack.runtime == "queue" else 5)
    assert job.wait(timeout=60).status == "canceled"
    with pytest.raises(JobFailed):
        job.result()
    job.download(tmp_path / "half.csv", partial=True)
    assert len(table(tmp_path / "half.csv")) == 20_000 - job.counts.pending
    job.retry()
    assert not job.is_ended
    seen = list(job.events())
    assert seen[-1].status == "succeeded"
    job.download(tmp_path / "whole.csv")
    assert [line["row_no"] for line in table(tmp_path / "whole.csv")] == [str(n) for n in range(1, 20_001)]


@pytest.mark.long
def test_running_job_is_canceled_and_taken_up_again_at_once(guichet, tmp_path):
    path = write(tmp_path / "bigger.csv", sample(60_000))
    job = upload_and_cancel(guichet, path, is_ready=lambda job: job.refresh().status != "queued")
    job.retry()
    assert job.wait(timeout=120).status == "succeeded"
    assert job.counts.succeeded == 60_000


def test_answers_lost_on_a_bad_line_make_one_job(stack, rows):
    with bad_line(stack.port) as line, Client(line.url) as guichet:
        line.cuts = [10, 10]
        job = guichet.predict_csv(rows)
        assert line.count == 3
        newest = next(guichet.jobs())
        assert newest.id == job.id
        assert [each.id for each in guichet.jobs() if each.info.created_at > job.info.created_at] == []
        assert job.result(timeout=60).counts.succeeded == COUNT


@pytest.mark.long
def test_events_on_a_bad_line_come_once_each(queue: Stack, big):
    with Client(queue.url) as straight:
        job = straight.predict_csv(big)
    with bad_line(queue.port) as line, Client(line.url) as guichet:
        job._client = guichet
        line.cuts = [700, 900, 700]
        numbers = [int(event.id) for event in job.events()]
        assert line.count >= 4
        assert numbers == list(range(1, len(numbers) + 1))
        assert job.refresh().status == "succeeded"


@pytest.mark.long
def test_restart_of_the_api_breaks_no_story(queue: Stack, big, tmp_path):
    with beside(queue, tmp_path) as other, Client(other.url, retries=12) as guichet:
        with paused(queue, "bulk"):
            job = guichet.predict_csv(big)
            story = job.events()
            seen = [next(story)]
            other.stop("api")
            other.start_api()
        seen += story
        assert [int(event.id) for event in seen] == list(range(1, len(seen) + 1))
        assert seen[-1].status == "succeeded"


@pytest.mark.long
@pytest.mark.parametrize("join", [False, True])
def test_download_on_a_bad_line_is_the_same_to_the_byte(queue: Stack, big, tmp_path, join):
    with Client(queue.url) as guichet:
        job = guichet.predict_csv(big)
        job.download(tmp_path / "straight.csv", join=join)
    size = (tmp_path / "straight.csv").stat().st_size
    with bad_line(queue.port) as line, Client(line.url) as guichet:
        job._client = guichet
        line.cuts = [size // 3, size // 3, size // 3]
        job.download(tmp_path / "out.csv", join=join)
        assert line.count == 4
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "straight.csv").read_bytes()


def test_asynchronous_client_does_the_same(stack: Stack, rows, tmp_path):
    async def talk() -> None:
        async with AsyncClient(stack.url) as guichet:
            assert (await guichet.validate_csv(rows)).valid == COUNT
            job = await guichet.predict_csv(rows, compress=True)
            seen = [event.type async for event in job.events()]
            assert seen[-1] == "finished"
            assert (await job.result()).counts.succeeded == COUNT
            await job.download(tmp_path / "out.csv", join=True)

    asyncio.run(talk())
    assert len(table(tmp_path / "out.csv")) == COUNT


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_command_writes_scores_and_errors(command, mixed, tmp_path):
    done = command("csv", mixed, "-o", tmp_path / "out.csv", "--errors", tmp_path / "err.csv")
    assert (done.returncode, done.stdout) == (3, "")
    assert "3 rows: 2 scored, 1 with an error" in done.stderr
    assert len(table(tmp_path / "out.csv")) == 3
    assert len(table(tmp_path / "err.csv")) == 1
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("stack", ["queue"], indirect=True)  # the command is the same
def test_command_reads_stdin_and_goes_on_by_id(command, rows, tmp_path):
    ticket = command("csv", "-", "--no-wait", stdin=rows.read_text())
    assert ticket.returncode == 0
    job_id = ticket.stdout.strip()
    done = command("csv", "--job", job_id, "-o", "out.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(table(tmp_path / "out.csv")) == COUNT
    piped = command("csv", "--job", job_id, "-o", "-", "--errors", "errors.csv", cwd=tmp_path)
    assert piped.returncode == 0, piped.stderr
    assert piped.stdout == (tmp_path / "out.csv").read_text()
    assert piped.stderr.endswith("Written to stdout\nNo errors: errors.csv has only its header\n")
    assert len((tmp_path / "errors.csv").read_text().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["errors.csv", "out.csv", "rows.csv"]
    waited = command("wait", job_id)
    assert (waited.returncode, waited.stdout) == (0, f"{COUNT} rows: {COUNT} scored, 0 with errors\n")
    listed = command("jobs", "--limit", "1")
    assert job_id in listed.stdout
    assert "stdin.csv" in listed.stdout


def test_command_only_checks_a_file(command, mixed):
    done = command("csv", mixed, "--validate")
    assert done.returncode == 3
    assert done.stdout.startswith("3 rows: 2 valid, 1 with an error\n")
    assert "row 2, age: " in done.stdout


def test_command_tells_what_is_wrong_with_a_header(command, tmp_path):
    (tmp_path / "rows.csv").write_text("age,sexe\n41,1\n")
    done = command("csv", tmp_path / "rows.csv", "-o", tmp_path / "out.csv")
    assert done.returncode == 2
    assert any(line.startswith("  /columns/") for line in done.stderr.splitlines())


@pytest.mark.parametrize("stack", ["queue"], indirect=True)  # the command is the same
def test_command_says_why_a_job_failed(command, mixed, tmp_path):
    done = command(
        "csv", mixed, "-o", tmp_path / "out.csv", "--errors", tmp_path / "err.csv", "--max-error-rate", "0.1"
    )
    assert done.returncode == 1
    assert " failed: " in done.stderr
    assert len(table(tmp_path / "err.csv")) == 1
    assert not (tmp_path / "out.csv").exists()


def test_command_writes_parquet_by_its_name(command, rows, tmp_path):
    assert command("csv", rows, "-o", tmp_path / "out.parquet").returncode == 0
    assert (tmp_path / "out.parquet").read_bytes()[:4] == b"PAR1"


@pytest.mark.long
def test_interrupted_command_leaves_the_job_and_can_be_gone_on_with(queue: Stack, rows, tmp_path):
    words = [sys.executable, "-m", "guichet", "csv", str(rows), "-o", str(tmp_path / "out.csv")]
    with paused(queue, "bulk"):
        with (tmp_path / "err").open("w") as err:
            process = subprocess.Popen(
                words,
                env=environment(queue.url),
                stderr=err,
                cwd=ROOT,
                # whoever runs the tests in the background has it ignored, and so would we
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        wait_until(lambda: "Accepted" in (tmp_path / "err").read_text())
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    output = (tmp_path / "err").read_text()
    assert "Traceback" not in output
    match = re.search(r"guichet csv --job (\S+) -o \S+", output)
    assert match is not None, output
    again = [sys.executable, "-m", *match[0].split()]
    done = subprocess.run(again, env=environment(queue.url), capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert len(table(tmp_path / "out.csv")) == COUNT


@pytest.mark.long
def test_bar_moves_on_a_terminal(stack: Stack, big, tmp_path):
    primary, secondary = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "guichet", "csv", str(big), "-o", str(tmp_path / "out.csv")],
        env=environment(stack.url, TERM="xterm", PYTHONIOENCODING="utf-8"),
        stderr=secondary,
        cwd=ROOT,
    )
    os.close(secondary)
    screen = b""
    while True:
        try:
            data = os.read(primary, 65536)
        except OSError:  # Linux says so when the other end is closed
            break
        if not data:
            break
        screen += data
    os.close(primary)
    assert process.wait(60) == 0, screen
    text = screen.decode()
    assert "\r\x1b[K" in text
    assert re.search(r"sending +\d+% █*░* ", text)
    assert re.search(r"(queued|running) +\d+% █*░* [\d,]+/20,000 rows", text)
    assert "20,000 rows: 20,000 scored, 0 with errors" in text
    assert text.count("\n") == 2  # the bar itself leaves no line behind: accepted, written
    assert len(table(tmp_path / "out.csv")) == 20_000


# ── without files ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stack", ["queue"], indirect=True)  # the command is the same
def test_command_scores_rows_and_waits_for_tickets(command):
    row = ROOT / "examples" / "attrition" / "request.json"
    done = command("predict", row)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("prediction   ")
    ticket = command("predict", "-", "--async", stdin=row.read_text()).stdout.strip()
    waited = command("wait", ticket)
    assert waited.returncode == 0
    assert waited.stdout.splitlines()[:2] == done.stdout.splitlines()[:2]
    batch = command("predict", ROOT / "examples" / "attrition" / "rows.json", "--json")
    assert (batch.returncode, '"has_failures": false' in batch.stdout) == (0, True)
    assert ticket in command("jobs").stdout
    assert "attrition (default)" in command("models").stdout
    assert command("cancel", ticket).returncode == 2
    bad = command("predict", "-", stdin='{"age": 41}')
    assert bad.returncode == 2
    assert any(line.startswith("  /features/") for line in bad.stderr.splitlines())

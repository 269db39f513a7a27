"""`guichet csv`: a file goes up, its progress is shown, its scored rows come down."""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from guichet.client import Client, Job
from guichet.command.rows import model_option
from guichet.command.terminal.bar import Bar
from guichet.command.terminal.console import Console, count, rows, size, with_errors
from guichet.command.terminal.following import follow, leave
from guichet.command.terminal.outcomes import (
    DONE,
    INTERRUPTED,
    JOB_FAILED,
    ROWS_FAILED,
    command_line,
    explain,
    has_errors_to_read,
    how_ended,
    reason,
)
from guichet.errors import GuichetError, Unusable
from guichet.flows.calls import CsvOptions
from guichet.transport.downloads import check_place
from guichet.transport.uploads import OnProgress, Source

STDOUT = "-"
NOT_WRITTEN = (".xlsx", ".xls", ".ods", ".zip", ".gz")  # what many tools write, and the service does not
MAX_SHOWN = 20  # errors of a report; the whole of it comes with --json


def score_csv(client: Client, options: argparse.Namespace, console: Console) -> int:
    """Score a CSV file, or go on with a job that was begun."""
    _check_usage(options)
    _check_places(options)
    with Bar(console) as bar:
        if options.validate:
            return _validate(client, options, console, bar)
        if options.job is None:
            job = _send(client, options, console, bar)
            if options.no_wait:
                return leave(job, console, f"To go on with it: {_command(options, job.id)}", is_json=options.is_json)
        else:
            job = client.job(options.job)
            if job.kind not in ("csv", "explain_batch"):
                raise Unusable(f"The job {job.id} is no CSV job (its kind is {job.kind}): use `guichet wait {job.id}`.")
        return _go_on(job, options, console, bar)


def explain_rows(client: Client, options: argparse.Namespace, console: Console) -> int:
    """Explain every row of a job in the background, and write a line for each with a column for each feature."""
    if options.output is None and not options.no_wait:
        raise Unusable("Say where to write the explanations: -o why.csv; or name one row: --row 0.")
    _check_outputs(options)
    _check_places(options)
    with Bar(console) as bar:
        job = client.job(options.job)
        if job.kind != "explain_batch":
            job = client.explain_job(options.job)
            console.tell(f"Accepted: {rows(job.counts.total)}, {job.info.model}@{job.info.model_version}, job {job.id}")
        if options.no_wait:
            return leave(job, console, f"To go on with it: {_command(options, job.id)}", is_json=options.is_json)
        return _go_on(job, options, console, bar)


def _go_on(job: Job[Any], options: argparse.Namespace, console: Console, bar: Bar) -> int:
    """Wait for a job with files and write them; whatever interrupts that, the job is kept."""
    try:
        return _finish(job, options, console, bar)
    except KeyboardInterrupt:
        bar.clear()
        console.tell(f"\nInterrupted; the job goes on. To go on with it: {_command(options, job.id)}")
        console.tell(f"To cancel it: {command_line(options, 'cancel', job.id)}")
        return INTERRUPTED
    except BrokenPipeError:
        raise  # whoever reads stdout has had enough
    except (GuichetError, OSError) as error:
        bar.clear()
        code = explain(error, console)
        console.tell(f"The job is kept. To go on with it: {_command(options, job.id)}")
        return code


def _check_usage(options: argparse.Namespace) -> None:
    if (options.file is None) == (options.job is None):
        raise Unusable("Give either a CSV file or --job ID.")
    if options.job is not None and (options.validate or options.no_wait):
        raise Unusable("--validate and --no-wait go with a file, not with --job.")
    if options.partial and options.job is None:
        raise Unusable("--partial goes with --job ID.")
    if options.output is None and not (options.validate or options.no_wait):
        raise Unusable("Say where to write the scored rows: -o scored.csv.")
    _check_outputs(options)


def _check_outputs(options: argparse.Namespace) -> None:
    if STDOUT in (options.output, options.errors) and options.is_json:
        raise Unusable("--json and - both write to stdout: give a file to -o and --errors.")
    for place in (options.output, options.errors):
        ending = Path(place or "").suffix.lower()
        if ending in NOT_WRITTEN:
            raise Unusable(f"{place}: files ending in {ending} are not written. {_advice(place, ending)}")
    if (options.errors or "").lower().endswith(".parquet"):
        raise Unusable(f"{options.errors}: errors are written as CSV only. Give a name that ends in .csv.")
    if options.format is None:
        options.format = "parquet" if (options.output or "").lower().endswith(".parquet") else "csv"


def _advice(place: str, ending: str) -> str:
    if ending in (".zip", ".gz"):
        return "Give a name that ends in .csv or .parquet, and compress that file afterwards."
    return "Give a name that ends in .csv, which every spreadsheet opens, or in .parquet."


def _check_places(options: argparse.Namespace) -> None:
    """Find out before the work that its result could not be written."""
    if options.output == options.errors == STDOUT:
        raise Unusable("The scored rows and the errors need two places: give a file to -o or to --errors.")
    places = [check_place(place) for place in (options.output, options.errors) if place not in (None, STDOUT)]
    for place in places:
        if not place.parent.is_dir():
            raise Unusable(f"There is no folder {place.parent} to write {place.name} into.")
        if not os.access(place.parent, os.W_OK):
            raise Unusable(f"The folder {place.parent} cannot be written to.")
        if options.file not in (None, "-") and place.exists() and place.samefile(options.file):
            raise Unusable(f"{place} is the input: give another name for the output.")
    if len(places) == 2 and places[0] == places[1]:
        raise Unusable("The scored rows and the errors need two files.")


def _validate(client: Client, options: argparse.Namespace, console: Console, bar: Bar) -> int:
    report = client.validate_csv(
        _source(options),
        filename=_filename(options),
        compress=options.gzip,
        on_progress=_bytes(bar, "sending"),
        **_csv_options(options),
    )
    bar.clear()
    if options.is_json:
        console.say_json(report.body)
    else:
        console.say(f"{rows(report.rows)}: {count(report.valid)} valid, {with_errors(report.invalid)}")
        labels = {"delimiter": "delimiter", "encoding": "encoding", "decimal": "decimal mark", "id_column": "id column"}
        parts = [f"{words} {_shown(report.format[name])}" for name, words in labels.items() if report.format.get(name)]
        console.say("format: " + ", ".join(parts))
        for notice in report.format.get("notices") or ():
            console.say(notice)
        for name in ("missing", "extra"):
            if report.columns.get(name):
                console.say(f"{name} columns: " + ", ".join(map(str, report.columns[name])))
        for error in report.errors[:MAX_SHOWN]:
            console.say(f"row {error.row_no}, {error.column or 'whole row'}: {error.message}")
        if report.error_count > MAX_SHOWN:
            codes = ", ".join(f"{code} {count(number)}" for code, number in sorted(report.errors_by_code.items()))
            console.say(f"... of {count(report.error_count)} errors ({codes})")
    return ROWS_FAILED if report.invalid else DONE


def _send(client: Client, options: argparse.Namespace, console: Console, bar: Bar) -> Job[object]:
    try:
        job: Job[object] = client.predict_csv(
            _source(options),
            filename=_filename(options),
            compress=options.gzip,
            on_progress=_bytes(bar, "sending"),
            **_csv_options(options),
        )  # type: ignore[assignment]
    except KeyboardInterrupt:
        bar.clear()
        console.tell("\nInterrupted while sending: a file that did not arrive in full is not stored.")
        console.tell("`guichet jobs` lists what was accepted.")
        raise
    bar.clear()
    for notice in job.info.csv.notices if job.info.csv is not None else ():
        console.tell(notice)
    console.tell(f"Accepted: {rows(job.counts.total)}, {job.info.model}@{job.info.model_version}, job {job.id}")
    return job


def _finish(job: Job[object], options: argparse.Namespace, console: Console, bar: Bar) -> int:
    if not options.partial:
        follow(job, bar)
    is_whole = job.status == "succeeded"
    code = (ROWS_FAILED if job.counts.failed else DONE) if is_whole else JOB_FAILED
    if is_whole or options.partial:
        _download(job, options, console, bar, options.output, errors=False)
    if options.errors is not None:
        # Also of a job that failed: it may have failed because of them.
        _download(job, options, console, bar, options.errors, errors=True, partial=not is_whole)
    _sum_up(job, options, console, is_whole=is_whole)
    if options.partial and not job.is_ended:
        return DONE
    return code


def _download(
    job: Job[object],
    options: argparse.Namespace,
    console: Console,
    bar: Bar,
    place: str,
    *,
    errors: bool,
    partial: bool = False,
) -> None:
    if place == STDOUT:
        # As a file first: what is cut off can go on, and what fails leaves no half of it in a pipe.
        with tempfile.TemporaryDirectory(prefix="guichet-") as folder:
            whole = Path(folder) / "rows"
            _download(job, options, console, bar, str(whole), errors=errors, partial=partial)
            console.copy(whole)
        return
    job.download(
        place,
        errors=errors,
        join=options.join and not errors,
        partial=partial or options.partial,
        parquet=options.format == "parquet" and not errors,
        on_progress=_bytes(bar, "reading errors" if errors else "reading"),
    )
    bar.clear()


def _sum_up(job: Job[object], options: argparse.Namespace, console: Console, *, is_whole: bool) -> None:
    counts = job.counts
    done = f"{count(counts.succeeded)} {_done(job)}, {with_errors(counts.failed)}"
    written = f"Written to {_place(options.output)}"
    if options.is_json:
        console.say_json(job.info.body)
    if is_whole:
        console.tell(f"{rows(counts.total)}: {done}. {written}")
    else:
        named = options.errors if counts.failed and options.errors != STDOUT else None
        why = reason(job, named)
        if job.is_ended:
            console.complain(f"The job {job.id} {how_ended(job)}{f': {why}' if why else ''}.")
        if options.partial:
            console.tell(f"{rows(counts.total)}: {done} so far. {written}")
        else:
            console.tell(f"To write the finished part: {_command(options, job.id)} --partial")
        if job.info.is_retryable:
            is_limited = job.error is not None and job.error.code == "too_many_errors"
            rest = "the rest, without the limit" if is_limited else "the rest"
            console.tell(
                f"To {'score' if job.kind == 'csv' else 'explain'} {rest}: {command_line(options, 'retry', job.id)}"
            )
    if options.errors is not None:
        if counts.failed:
            console.tell(f"Errors written to {_place(options.errors)}")
        elif job.is_ended:
            console.tell(f"No errors: {_place(options.errors)} has only its header")
        else:
            console.tell(f"Errors so far written to {_place(options.errors)}")
    elif has_errors_to_read(job) and job.is_ended:
        partial = " --partial" if options.partial else ""
        console.tell(f"To see the faults: {_command(options, job.id)}{partial} --errors errors.csv")


def _done(job: Job[object]) -> str:
    return "scored" if job.kind == "csv" else "explained"


def _command(options: argparse.Namespace, job_id: str) -> str:
    """Return the command that continues with a job. It never shows a key."""
    words = ["csv", "--job", job_id, "-o", options.output or "scored.csv"]
    words += ["--errors", options.errors] if options.errors else []
    words += ["--join"] if options.join else []
    words += ["--format", "parquet"] if options.format == "parquet" else []
    return command_line(options, *words)


def _place(place: str) -> str:
    return "stdout" if place == STDOUT else place


def _csv_options(options: argparse.Namespace) -> CsvOptions:
    csv_options: CsvOptions = {
        "delimiter": options.delimiter,
        "encoding": options.encoding,
        "decimal": options.decimal,
        "thousands": options.thousands,
        "sheet": options.sheet,
        "id_column": options.id_column,
        "strict": options.strict or None,
        "max_error_rate": options.max_error_rate,
    }
    model = model_option(options.model)
    csv_options["model"], csv_options["version"] = model.get("model"), model.get("version")
    return csv_options


def _source(options: argparse.Namespace) -> Source:
    return sys.stdin.buffer if options.file == "-" else str(options.file)


def _filename(options: argparse.Namespace) -> str | None:
    return "stdin.csv" if options.file == "-" else None


def _bytes(bar: Bar, label: str) -> OnProgress:
    def show(done: int, total: int | None) -> None:
        bar.show(
            label, done, total, size(done) if total is None else f"{size(done)} of {size(total)}", is_transfer=True
        )

    return show


def _shown(value: object) -> str:
    return {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe", ".": "point"}.get(str(value), str(value))

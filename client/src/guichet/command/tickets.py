"""`guichet jobs`, `wait`, `cancel`, `retry`, `erase` and `models`."""

import argparse
from dataclasses import asdict
from itertools import islice

from guichet.client import Client, Job
from guichet.command.comparing import show_comparison
from guichet.command.registering import show_registered
from guichet.command.reproducing import show_reproduction
from guichet.command.rows import show_batch, show_result
from guichet.command.terminal.bar import Bar
from guichet.command.terminal.console import Console, count, rows, with_errors
from guichet.command.terminal.following import follow
from guichet.command.terminal.outcomes import DONE, JOB_FAILED, ROWS_FAILED, command_line, has_errors_to_read, reason
from guichet.command.training import show_trained
from guichet.errors import JobFailed
from guichet.flows.comparisons import Comparison
from guichet.flows.reproductions import Reproduction
from guichet.flows.trainings import TrainedVersion
from guichet.records import BatchResult, Result
from guichet.registering import Registered


def list_jobs(client: Client, options: argparse.Namespace, console: Console) -> int:
    """Print the newest jobs."""
    page_size = min(max(options.limit, 1), 200)
    jobs = list(islice(client.jobs(status=options.status, model=options.model, page_size=page_size), options.limit))
    if options.is_json:
        console.say_json([job.info.body for job in jobs])
    elif jobs:
        console.table(
            ("ID", "STATUS", "KIND", "MODEL", "ROWS", "ERRORS", "CREATED", "FILE"), [_line(job) for job in jobs]
        )
    else:
        console.tell("There are no such jobs." if options.status or options.model else "There are no jobs yet.")
    return DONE


def _line(job: Job[object]) -> tuple[str, ...]:
    info = job.info
    return (
        info.id,
        info.status,
        info.kind,
        info.model if info.model_version is None else f"{info.model}@{info.model_version}",
        count(info.counts.total),
        count(info.counts.failed),
        f"{info.created_at.astimezone():%Y-%m-%d %H:%M:%S}",
        "" if info.csv is None else info.csv.filename or "",
    )


def wait(client: Client, options: argparse.Namespace, console: Console) -> int:
    """Wait for a job and print its result."""
    job = client.job(options.id)
    if job.kind == "predict" or options.seconds is not None:
        job.wait(options.seconds)
    else:
        with Bar(console) as bar:
            follow(job, bar)
    if job.kind in ("csv", "explain_batch") or options.is_json:
        return _report(job, options, console)
    try:
        result = job.result()
    except JobFailed as error:
        console.complain(str(error))
        return JOB_FAILED
    if isinstance(result, Result):
        show_result(console, result, is_json=False)
    elif isinstance(result, BatchResult):
        show_batch(console, result, is_json=False)
    elif isinstance(result, Comparison):
        show_comparison(console, result, is_json=False)
    elif isinstance(result, Registered):
        show_registered(console, result, is_json=False)
    elif isinstance(result, TrainedVersion):
        show_trained(console, result, is_json=False)
    elif isinstance(result, Reproduction):
        return show_reproduction(console, result, is_json=False)
    return ROWS_FAILED if job.info.has_failures else DONE


def cancel(client: Client, options: argparse.Namespace, console: Console) -> int:
    """Cancel a job."""
    job = client.job(options.id).cancel()
    if options.is_json:
        console.say_json(job.info.body)
    elif job.is_ended:
        console.tell(f"The job {job.id} is canceled.")
    else:
        console.tell(f"The job {job.id} runs: it is canceled as soon as its worker sees it.")
    return DONE


def retry(client: Client, options: argparse.Namespace, console: Console) -> int:
    """Retry the remaining rows of a job."""
    job = client.job(options.id)
    if job.info.is_being_canceled and not options.is_json:
        console.tell(f"The job {job.id} is still being canceled: it is taken up again when that is done.")
    job.retry()
    if options.is_json:
        console.say_json(job.info.body)
    else:
        next_command = command_line(options, "csv", "--job", job.id, "-o", "scored.csv")
        console.tell(f"The job {job.id} is {job.status}. To go on: {next_command}")
    return DONE


def erase(client: Client, options: argparse.Namespace, console: Console) -> int:
    """Erase a job."""
    erasure = client.erase(options.id, reason=options.reason)
    if options.is_json:
        console.say_json(asdict(erasure))
        return DONE
    copies = len(erasure.erased) - 1
    beside = f", with {count(copies)} that were made of its rows" if copies else ""
    console.say(f"The job {erasure.id} is erased ({rows(erasure.rows)}){beside}.")
    return DONE


def list_models(client: Client, options: argparse.Namespace, console: Console) -> int:
    """Print the models."""
    models = client.models()
    if options.is_json:
        console.say_json([model.body for model in models])
        return DONE
    console.table(
        ("MODEL", "TASK", "SERVES", "VERSIONS", "DESCRIPTION"),
        [
            (
                model.model + (" (default)" if model.is_default else ""),
                model.task,
                f"@{model.aliases['champion']}" if "champion" in model.aliases else "",
                str(len(model.versions)),
                model.description,
            )
            for model in models
        ],
    )
    return DONE


def _report(job: Job[object], options: argparse.Namespace, console: Console) -> int:
    if options.is_json:
        console.say_json(job.info.body)
    if job.status != "succeeded":
        why = reason(job)
        console.complain(f"The job {job.id} is {job.status}{f' ({why})' if why else ''}.")
        if job.kind == "csv" and has_errors_to_read(job):
            words = ("csv", "--job", job.id, "-o", "scored.csv", "--errors", "errors.csv")
            console.tell(f"To see the faults: {command_line(options, *words)}")
        return JOB_FAILED
    counts = job.counts
    if not options.is_json:
        console.say(f"{rows(counts.total)}: {count(counts.succeeded)} scored, {with_errors(counts.failed)}")
        console.tell(f"To write them: {command_line(options, 'csv', '--job', job.id, '-o', 'scored.csv')}")
    return ROWS_FAILED if job.info.has_failures else DONE

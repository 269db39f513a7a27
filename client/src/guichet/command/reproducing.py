"""`guichet reproduce`: whether a past decision comes out again."""

import argparse
from typing import Any

from guichet.client import Client
from guichet.command.terminal.bar import Bar
from guichet.command.terminal.console import Console, count, rows
from guichet.command.terminal.following import follow, leave
from guichet.command.terminal.outcomes import DONE, ROWS_FAILED, complain_of
from guichet.flows.reproductions import Reproduction

SHOWN = 20  # rows that differ


def reproduce(client: Client, options: argparse.Namespace, console: Console) -> int:
    """Make the decisions of a job again, and print what decided and what has changed since."""
    job = client.reproduce(options.id, row=options.row)
    if options.no_wait:
        return leave(job, console, f"To see its result: guichet wait {job.id}", is_json=options.is_json)
    with Bar(console) as bar:
        follow(job, bar)
    if job.status != "succeeded":
        return complain_of(job, console)
    return show_reproduction(console, job.result(), is_json=options.is_json)


def show_reproduction(console: Console, reproduction: Reproduction, *, is_json: bool) -> int:
    """Print what decided, what has changed since, and which rows differ; return the exit code."""
    code = DONE if reproduction.is_equal else ROWS_FAILED
    body = reproduction.body
    if is_json:
        console.say_json(body)
        return code
    changed = body["changed"]
    console.say(f"job        {reproduction.reproduces}")
    console.say(f"model      {reproduction.model}@{reproduction.version}")
    console.say(f"promoted   {_promotion(body['promotion'])}")
    console.say(f"artefact   {_state(changed, 'artefact', 'sha256 ' + body['sha256'])}")
    console.say(f"card       {_state(changed, 'card', 'as it was registered')}")
    if not reproduction.rows:
        console.say("Nothing was scored: what is not as it was registered is not loaded.")
        return code
    registered = body["registered_scorer"]
    console.say(
        f"scorer     {body['scorer']}{'' if body['scorer'] == registered else f', registered was {registered}'}"
    )
    console.say(f"threshold  {body['threshold']}")
    differ = body["libraries_that_differ"]
    libraries = ", ".join(f"{name} {number}" for name, number in body["libraries"].items())
    console.say(f"libraries  {'DIFFER from training: ' + ', '.join(differ) if differ else libraries}")
    console.say(
        f"rows       {rows(reproduction.rows)}, {count(reproduction.equal)} equal bit for bit or without a score"
    )
    for row in [row for row in body["rows"] if row["changed"]][:SHOWN]:
        console.say(f"CHANGED    row {row['index']}: {row['changed']}: {row['message']}")
    return code


def _state(changed: dict[str, str], part: str, message: str) -> str:
    return f"CHANGED: {changed[part]}" if part in changed else message


def _promotion(moved: dict[str, Any] | None) -> str:
    if moved is None:
        return "it was not the champion when the job came"
    return f"{moved['at']} by {moved['by']}: {moved['reason'] or 'no reason was given'}"

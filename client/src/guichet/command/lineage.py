"""`guichet lineage`: what led to the score of a row, and what became of it."""

import argparse
from typing import Any

from guichet.client import Client
from guichet.command.terminal.console import Console
from guichet.command.terminal.outcomes import DONE


def show_lineage(client: Client, options: argparse.Namespace, console: Console) -> int:
    """Print the lineage of a row, a line for each part."""
    lineage = client.lineage(options.id, row=options.row)
    if options.is_json:
        console.say_json(lineage)
        return DONE
    request, attempts, version = lineage["request"], lineage["attempts"], lineage["version"]
    route = f"{request['method']} {request['route']}" if request["method"] else "not logged"
    console.say(f"job        {lineage['job_id']}, row {lineage['row']}")
    console.say(f"request    {request['id']} ({route}) by {request['caller'] or 'anyone'}")
    count = attempts["count"]
    times = "1 attempt" if count == 1 else f"{count} attempts"
    console.say(f"accepted   {attempts['accepted_at']}, {attempts['status']}, {times}")
    console.say(f"model      {version['model']}@{version['version']}, scored by {version['scorer']}")
    console.say(f"artefact   sha256 {version['sha256']}")
    console.say(f"libraries  {', '.join(f'{name} {number}' for name, number in version['libraries'].items())}")
    console.say(f"promoted   {_promotion(lineage['promotion'])}")
    console.say(f"input      {_intact(lineage['input'])}: {lineage['input']['features']}")
    console.say(f"output     {_output(lineage['output'])}")
    explained = lineage["explanation"]
    console.say(f"explained  {'; '.join(explained['top']) if explained else 'not yet'}")
    outcome = lineage["outcome"]
    console.say(f"outcome    {outcome['actual'] if outcome else 'not known'}")
    return DONE


def _promotion(moved: dict[str, Any] | None) -> str:
    if moved is None:
        return "it was not the champion when the job came"
    who = f" by {moved['by']}: {moved['reason'] or 'no reason was given'}" if moved["by"] else ""
    return f"{moved['promoted_at']}{who}"


def _intact(row: dict[str, Any]) -> str:
    words = {True: "as it was accepted", False: "CHANGED since it was accepted"}
    return words.get(row["is_intact"], "nobody can tell whether it is as it was accepted")


def _output(output: dict[str, Any] | None) -> str:
    if output is None:
        return "none"
    parts = [str(output["prediction"])] + [
        f"{name} {output[name]}" for name in ("label", "probability", "threshold") if output[name] is not None
    ]
    return f"{', '.join(parts)}, at {output['scored_at']}"

"""`guichet explain`: why a row has its score, in words; or every row of a job, as a file."""

import argparse

from guichet.client import Client
from guichet.command.console import Console
from guichet.command.files import explain_rows
from guichet.command.outcomes import DONE
from guichet.command.rows import model_option, read_row
from guichet.errors import Unusable
from guichet.records import Explanation


def explain_score(client: Client, options: argparse.Namespace, console: Console) -> int:
    """Explain what a file holds, or rows of a job."""
    if (options.file is None) == (options.job is None):
        raise Unusable("Give either a JSON file with a row, or --job ID.")
    if options.file is None and options.row is None:
        if options.model is not None:
            raise Unusable("--model goes with a row: a job is explained by the version that scored it.")
        return explain_rows(client, options, console)
    if options.output is not None or options.errors is not None or options.no_wait:
        raise Unusable("-o, --errors and --no-wait go with --job ID, without --row: one row is printed.")
    if options.file is None:
        found = client.explain(job_id=options.job, index=options.row, **model_option(options.model))
    elif options.row is not None:
        raise Unusable("--row goes with --job ID.")
    else:
        found = client.explain(read_row(options.file), **model_option(options.model))
    show_explanation(console, found, is_json=options.is_json)
    return DONE


def show_explanation(console: Console, found: Explanation, *, is_json: bool) -> None:
    """Print an explanation: what the row comes to, and the largest contributions in words."""
    if is_json:
        console.say_json(found.body)
        return
    whose = "" if found.label is None else f" of {found.label}"
    console.say(f"value        {found.value:.6g} ({found.scale}{whose})")
    console.say(f"base value   {found.base_value:.6g}")
    if found.probability is not None:
        console.say(f"probability  {found.probability:.4f}")
    for text in found.top:
        console.say(f"  {text}")
    console.say(f"method       {found.method}")
    console.say(f"model        {found.model}@{found.model_version}")
    console.say(f"job          {found.job_id}")

"""`guichet explain`: explain the score of a row in words, or every row of a job in a file."""

import argparse

from guichet.client import Client
from guichet.command.files import explain_rows
from guichet.command.rows import model_option, read_row
from guichet.command.terminal.console import Console
from guichet.command.terminal.outcomes import DONE
from guichet.errors import Unusable
from guichet.records import Explanation


def explain_score(client: Client, options: argparse.Namespace, console: Console) -> int:
    """Explain the row of a file, or rows of a job."""
    if (options.file is None) == (options.job is None):
        raise Unusable("Give either a JSON file with a row, or --job ID.")
    if options.file is None and options.row is None:
        if options.model is not None:
            raise Unusable("--model goes with a row: a job is explained by the version that scored it.")
        return explain_rows(client, options, console)
    if options.output is not None or options.errors is not None or options.no_wait:
        raise Unusable("-o, --errors and --no-wait go with --job ID, without --row: one row is printed.")
    if options.file is None:
        explanation = client.explain(job_id=options.job, index=options.row, **model_option(options.model))
    elif options.row is not None:
        raise Unusable("--row goes with --job ID.")
    else:
        explanation = client.explain(read_row(options.file), **model_option(options.model))
    show_explanation(console, explanation, is_json=options.is_json)
    return DONE


def show_explanation(console: Console, explanation: Explanation, *, is_json: bool) -> None:
    """Print an explanation: the row's value, and the largest contributions in words."""
    if is_json:
        console.say_json(explanation.body)
        return
    whose = "" if explanation.label is None else f" of {explanation.label}"
    console.say(f"value        {explanation.value:.6g} ({explanation.scale}{whose})")
    console.say(f"base value   {explanation.base_value:.6g}")
    if explanation.probability is not None:
        console.say(f"probability  {explanation.probability:.4f}")
    for text in explanation.top:
        console.say(f"  {text}")
    console.say(f"method       {explanation.method}")
    console.say(f"model        {explanation.model}@{explanation.model_version}")
    console.say(f"job          {explanation.job_id}")

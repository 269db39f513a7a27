"""`guichet predict`: rows from JSON, scores to stdout."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NoReturn

from guichet.client import Client
from guichet.command.terminal.console import Console
from guichet.command.terminal.outcomes import DONE, ROWS_FAILED
from guichet.errors import Unusable
from guichet.flows.calls import BatchOptions, RowOptions
from guichet.records import BatchResult, Result


def predict(client: Client, options: argparse.Namespace, console: Console) -> int:
    """Score the rows of the file."""
    row, fields = _unwrap(_read(options.file))
    fields |= model_option(options.model)
    wrong = fields.keys() - BatchOptions.__annotations__.keys()
    if wrong or (isinstance(row, dict) and "on_error" in fields):
        raise Unusable(f"{', '.join(sorted(wrong) or ['on_error'])}: not a field of a request beside its features.")
    if isinstance(row, list):
        return _batch(client, options, console, row, fields)
    if options.is_async:
        return _show_ticket(console, options, client.submit(row, **_as_row_options(fields)).info.body)
    result = client.predict(row, **_as_row_options(fields))
    show_result(console, result, is_json=options.is_json)
    return DONE


def _batch(client: Client, options: argparse.Namespace, console: Console, rows: list[Any], fields: Any) -> int:  # noqa: ANN401
    batch_options: BatchOptions = fields
    if options.is_async:
        return _show_ticket(console, options, client.submit_batch(rows, **batch_options).info.body)
    result = client.predict_batch(rows, **batch_options)
    show_batch(console, result, is_json=options.is_json)
    return ROWS_FAILED if result.has_failures else DONE


def _as_row_options(fields: Any) -> RowOptions:  # noqa: ANN401 - the service checks the values
    row_options: RowOptions = fields
    return row_options


def _show_ticket(console: Console, options: argparse.Namespace, body: Any) -> int:  # noqa: ANN401
    if options.is_json:
        console.say_json(body)
    else:
        console.say(body["id"])
        console.tell(f"Accepted. To read the result: guichet wait {body['id']}")
    return DONE


def show_result(console: Console, result: Result, *, is_json: bool) -> None:
    """Print the score of one row."""
    if is_json:
        console.say_json(result.body)
        return
    label = "" if result.label is None or result.label == str(result.prediction) else f" ({result.label})"
    console.say(f"prediction   {result.prediction}{label}")
    if result.probability is not None:
        threshold = "" if result.threshold is None else f" (threshold {result.threshold:g})"
        console.say(f"probability  {result.probability:.4f}{threshold}")
    for name, probability in (result.probabilities or {}).items():
        console.say(f"  {name}  {probability:.4f}")
    console.say(f"model        {result.model}@{result.model_version}")
    console.say(f"job          {result.job_id}")


def show_batch(console: Console, result: BatchResult, *, is_json: bool) -> None:
    """Print the scores of several rows."""
    if is_json:
        console.say_json(result.body)
        return
    console.table(
        ("ROW", "PREDICTION", "LABEL", "PROBABILITY", "ERRORS"),
        [
            (
                str(item.index + 1),
                "" if item.prediction is None else str(item.prediction),
                item.label or "",
                "" if item.probability is None else f"{item.probability:.4f}",
                "; ".join(map(str, item.errors)),
            )
            for item in result.items
        ],
    )
    console.tell(f"model {result.model}@{result.model_version}, job {result.job_id}")


def model_option(text: str | None) -> dict[str, Any]:
    """Read NAME, NAME@VERSION or NAME@ALIAS."""
    if text is None:
        return {}
    name, mark, version = text.partition("@")
    if not name or (mark and not version):
        raise Unusable(f"--model {text}: give a name, or a name and a version or alias such as churn@2.")
    if version.isascii() and version.isdigit():
        return {"model": name, "version": int(version)}
    return {"model": text, "version": None} if mark else {"model": text}


def read_row(file: str) -> dict[str, Any]:
    """Return the row that a JSON file holds, alone or as {"features": ...}."""
    row, _ = _unwrap(_read(file))
    if not isinstance(row, dict):
        raise Unusable(f"{file} must hold one row: an object of features.")
    return row


def _read(file: str) -> object:
    data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    try:
        return json.loads(data, parse_constant=_refuse_constant, object_pairs_hook=_members)
    except RecursionError:
        raise Unusable(f"{file} is nested too deeply: features are plain values.") from None
    except ValueError as error:
        raise Unusable(f"{file} is not JSON: {error}.") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value, write null for a missing one")


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object has the same key twice, keep one of them")
    return members


def _unwrap(value: object) -> tuple[Any, dict[str, Any]]:
    """Return the row, or the list of rows, and the options beside it."""
    if isinstance(value, list):
        return [_unwrap_row(row) for row in value], {}
    if isinstance(value, dict):
        for name, kind in (("features", dict), ("rows", list)):
            if isinstance(value.get(name), kind):
                inner = value.pop(name)
                return [_unwrap_row(row) for row in inner] if kind is list else inner, value
        return value, {}
    raise Unusable("The JSON is neither an object with features nor a list of them.")


def _unwrap_row(row: object) -> object:
    return row["features"] if isinstance(row, dict) and row.keys() == {"features"} else row

"""`guichet replay` and `guichet comparison`: how two versions differ on the same rows."""

import argparse
import json
from typing import Any

from guichet.client import Client
from guichet.command.terminal.bar import Bar
from guichet.command.terminal.console import Console, count, rows
from guichet.command.terminal.following import follow, leave
from guichet.command.terminal.outcomes import DONE, ROWS_FAILED, complain_of
from guichet.errors import Unusable
from guichet.flows.comparisons import Comparison
from guichet.transport.downloads import check_place

SHOWN = 5  # segments and disagreements


def replay(client: Client, options: argparse.Namespace, console: Console) -> int:
    """Replay a window, and print the comparison."""
    if options.output is not None:
        check_place(options.output)
    job = client.replay(
        options.model,
        start=options.start,
        end=options.end,
        decided_by=options.of,
        features=_features(options.where),
        cost_fp=options.cost_fp,
        cost_fn=options.cost_fn,
    )
    console.tell(f"Accepted: {rows(job.counts.total)}, {job.info.model}@{job.info.model_version}, job {job.id}")
    if options.no_wait:
        return leave(job, console, f"To see its result: guichet wait {job.id}", is_json=options.is_json)
    with Bar(console) as bar:
        follow(job, bar)
        if job.status != "succeeded":
            return complain_of(job, console)
        if options.output is not None:
            job.download(options.output)
    show_comparison(console, job.result(), is_json=options.is_json)
    return ROWS_FAILED if job.info.has_failures else DONE


def compare(client: Client, options: argparse.Namespace, console: Console) -> int:
    """Print the comparison of a model's challenger with its champion."""
    comparison = client.comparison(
        options.name,
        start=options.start,
        end=options.end,
        decided_by=options.of,
        cost_fp=options.cost_fp,
        cost_fn=options.cost_fn,
    )
    show_comparison(console, comparison, is_json=options.is_json)
    return DONE


def show_comparison(console: Console, comparison: Comparison, *, is_json: bool) -> None:
    """Print a comparison: the figures, the segments that changed most surely, and the largest disagreements."""
    if is_json:
        console.say_json(comparison.body)
        return
    body = comparison.body
    deciding = ", ".join(f"@{each['version']}" for each in body["versions"])
    console.say(f"{comparison.model}@{comparison.model_version} beside what {deciding} decided")
    console.say(f"pairs        {count(comparison.pairs)}{_refused(comparison)}")
    if body["agreement"] is not None:
        console.say(f"agreement    {_share(body['agreement'])}")
        console.say(f"flips        {_flips(comparison)}")
    if body["score_shift"] is not None:
        console.say(f"score shift  {_figure(body['score_shift'])}, largest {body['score_shift']['largest']:.6g}")
    if body["cost"] is not None:
        cost = body["cost"]
        change = _figure(cost["difference"])
        console.say(f"cost         {cost['before']['cost']:.6g} -> {cost['after']['cost']:.6g} ({change})")
    for name, measure in (body["outcomes"] or {}).items():
        if name != "rows" and measure["before"] is not None:
            change = _figure(measure["difference"])
            console.say(f"{name:12} {measure['before']:.6g} -> {measure['after']:.6g} ({change})")
    for segment in body["segments"][:SHOWN]:
        what = f"flips {_share(segment['share'])}" if segment.get("share") else f"shift {_figure(segment['shift'])}"
        console.say(f"  {segment['feature']} {segment['segment']}: {what} of {rows(segment['rows'])}")
    for each in body["largest"][:SHOWN]:
        console.say(f"  job {each['job_id']} row {each['row']}: {each['before']:.6g} -> {each['after']:.6g}")
    for note in comparison.notes:
        console.say(note)


def _refused(comparison: Comparison) -> str:
    return f", {count(comparison.refused)} refused" if comparison.refused else ""


def _flips(comparison: Comparison) -> str:
    if comparison.flips_up is None:
        return count(comparison.flips or 0)
    up, down = count(comparison.flips_up), count(comparison.flips_down or 0)
    return f"{count(comparison.flips or 0)}: {up} up, {down} down (McNemar's exact p = {comparison.p_value:.3g})"


def _share(estimate: dict[str, Any]) -> str:
    return f"{estimate['value']:.2%} ({estimate['low']:.2%} to {estimate['high']:.2%})"


def _figure(estimate: dict[str, Any]) -> str:
    if estimate["low"] is None:
        return "not defined" if estimate["value"] is None else f"{estimate['value']:+.6g}"
    return f"{estimate['value']:+.6g}, 95 %: {estimate['low']:+.6g} to {estimate['high']:+.6g}"


def _features(texts: list[str]) -> dict[str, list[Any]]:
    """Return the values by feature of `NAME=VALUE`; a value is JSON where it can be read so, and else text."""
    values_by_name: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise Unusable(f"{text!r} names no feature and value: write it as NAME=VALUE, e.g. region=north.")
        try:
            read = json.loads(value)
        except ValueError:
            read = value
        values_by_name.setdefault(name, []).append(value if isinstance(read, dict | list) else read)
    return values_by_name

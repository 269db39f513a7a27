"""`guichet train`: a candidate version from a CSV file, or from a window of scored rows."""

import argparse
import re
import time
from pathlib import Path
from typing import Any

from guichet.client import Client, Job
from guichet.command.terminal.bar import Bar
from guichet.command.terminal.console import Console
from guichet.command.terminal.following import leave
from guichet.command.terminal.outcomes import DONE, complain_of
from guichet.errors import Unusable
from guichet.flows.trainings import TrainedVersion, TrainingOptions

POLL_SECONDS = 1.0
SHOWN = 10  # features by their importance
_METRICS = ("roc_auc", "brier", "log_loss", "accuracy", "recall", "precision", "f1", "r2", "rmse", "mae")


def train(client: Client, options: argparse.Namespace, console: Console) -> int:
    """Train a version, and print what came of it."""
    job = _submit(client, options)
    console.tell(f"Accepted: a training of {job.info.model}, job {job.id}")
    if options.no_wait:
        return leave(job, console, f"To see its result: guichet wait {job.id}", is_json=options.is_json)
    with Bar(console) as bar:
        while not job.refresh().is_ended:
            progress = job.info.body.get("training") or {"stage": "waiting", "done": 0, "total": 1}
            total = max(int(progress["total"]), 1)
            bar.show(str(progress["stage"]), int(progress["done"]), total, f"{progress['done']}/{total}")
            time.sleep(POLL_SECONDS)
        bar.clear()
    if job.status != "succeeded":
        return complain_of(job, console)
    show_trained(console, job.result(), is_json=options.is_json)
    return DONE


def _submit(client: Client, options: argparse.Namespace) -> "Job[TrainedVersion]":
    chosen: TrainingOptions = {
        "positive": options.positive,
        "leave_out": options.leave_out or None,
        "estimators": options.estimators.split(",") if options.estimators else None,
        "draws": options.draws,
        "seed": options.seed,
        "cost_fp": options.cost_fp,
        "cost_fn": options.cost_fn,
        "target_recall": options.target_recall,
    }
    if options.again is not None:
        if options.file is not None or options.target is not None or options.task is not None:
            raise Unusable("A window is trained on without a file, --target and --task: its model's card has them.")
        return client.train_again(options.again, name=options.name, start=options.start, end=options.end, **chosen)
    if options.file is None or options.target is None:
        raise Unusable("Name the file and the column with the answer: guichet train churn.csv --target left.")
    name = options.name or _name_of(options.file)
    return client.train(options.file, options.target, name=name, task=options.task, **chosen)


def _name_of(file: str) -> str:
    """Return the name of a model that is called like its file."""
    name = re.sub(r"[^a-z0-9_-]+", "_", Path(file).stem.lower()).strip("_-")[:63]
    if not name[:1].isalpha():
        raise Unusable(f"A model cannot be called like {file!r}: name it with --name.")
    return name


def show_trained(console: Console, trained: TrainedVersion, *, is_json: bool) -> None:
    """Print a trained version: metrics with their intervals, the threshold, what it goes by, and how to promote it."""
    if is_json:
        console.say_json(trained.body)
        return
    body = trained.body
    console.say(f"{trained.model}@{trained.version}: {trained.estimator}, {body['rows']} rows, a candidate")
    for name in _METRICS:
        metric = body["metrics"].get(name)
        if metric is not None and metric["value"] is not None:
            console.say(f"{name:12} {metric['value']:.4g} ({_ends(metric)})")
    if trained.threshold is not None:
        console.say(f"{'threshold':12} {trained.threshold:.4g}")
    for each in body["importance"][:SHOWN]:
        console.say(f"  {each['feature']}: {each['mean']:.4g}")
    for note in trained.notes:
        console.say(note)
    console.tell(f"To let it serve: guichet promote {trained.model}@{trained.version} --reason WHY")


def _ends(metric: Any) -> str:  # noqa: ANN401 - JSON
    return "no interval" if metric["low"] is None else f"{metric['low']:.4g} to {metric['high']:.4g}"

"""`guichet register`, `list` and `show`: models and their versions."""

import argparse
import json
from pathlib import Path
from typing import Any

from guichet.client import Client
from guichet.command.terminal.bar import Bar
from guichet.command.terminal.console import Console
from guichet.command.terminal.following import follow, leave
from guichet.command.terminal.outcomes import DONE, complain_of
from guichet.errors import Unusable
from guichet.records import Model
from guichet.registering import Registered, RegisterOptions

SHOWN = 5  # categories of a feature


def register(client: Client, options: argparse.Namespace, console: Console) -> int:
    """Upload a model, wait until it is a version, and print what it takes."""
    chosen: RegisterOptions = {
        "version": options.as_version,
        "target": options.target,
        "task": options.task,
        "threshold": _threshold(options.threshold),
        "labels": _labels(options.labels),
        "metrics": None if options.metrics is None else _document(options.metrics),
        "probability": options.probability,
        "scores": options.scores,
        "skip_bad": options.skip_bad or None,
        "trust": None if options.trust is None else options.trust.split(","),
        "delimiter": options.delimiter,
        "encoding": options.encoding,
        "decimal": options.decimal,
        "thousands": options.thousands,
    }
    job = client.register(
        options.file,
        name=options.name,
        reference=options.reference,
        contract=options.contract,
        card=options.card,
        preprocessor=options.preprocessor,
        code=options.code,
        **chosen,
    )
    console.tell(f"Accepted: {Path(options.file).name} for {options.name}, job {job.id}")
    if options.no_wait:
        return leave(job, console, f"To see its result: guichet wait {job.id}", is_json=options.is_json)
    with Bar(console) as bar:
        follow(job, bar)
    if job.status != "succeeded":
        return complain_of(job, console)
    show_registered(console, job.result(), is_json=options.is_json)
    return DONE


def show_registered(console: Console, registered: Registered, *, is_json: bool) -> None:
    """Print the version that an upload became, and what it takes."""
    if is_json:
        console.say_json(registered.body)
        return
    label = f"{registered.model}@{registered.model_version}"
    serves = "it serves at once" if registered.alias else f"to let it serve: guichet promote {label} --reason WHY"
    console.say(f"{label}  {registered.card['task']}, sha256 {registered.sha256[:12]}; {serves}")
    console.say(f"features     {', '.join(registered.features)}")
    if registered.left_out:
        console.say(f"left out     {', '.join(registered.left_out)}, which are no features of the model")
    console.tell(f"To see more: guichet show {label}")


def list_versions(client: Client, options: argparse.Namespace, console: Console) -> int:
    """Print the versions of all models, of one, or one version (`name@3`, `name@alias`)."""
    name, _, which = (options.name or "").partition("@")
    models = [model for model in client.models() if name in ("", model.model)]
    only = None
    if which or (name and not models):
        only = client.model(options.name).version  # or it says what there is
    if options.is_json:
        console.say_json([model.body for model in models])
        return DONE
    lines = []
    for model in models:
        aliases: dict[int, list[str]] = {}
        for alias, number in model.aliases.items():
            aliases.setdefault(number, []).append(alias)
        archived = set(model.body.get("archived", []))
        for number in sorted({*model.versions, *archived} if only is None else {only}):
            state = "archived" if number in archived else ", ".join(aliases.get(number, []))
            lines.append((f"{model.model}@{number}", model.task, state))
    console.table(("VERSION", "TASK", "ALIASES"), lines)
    return DONE


def show(client: Client, options: argparse.Namespace, console: Console) -> int:
    """Print a version: its features, how it is scored, and how to ask for a prediction."""
    model = client.model(options.model)
    if options.is_json:
        console.say_json(model.body)
        return DONE
    for line in _described(model, client.url):
        console.say(line)
    return DONE


def _described(model: Model, url: str) -> list[str]:
    scorer, card = model.body.get("scorer") or {}, model.card
    aliases = f" ({', '.join(model.aliases)})" if model.aliases else ""
    lines = [f"{model.name}@{model.version}{aliases}  {model.task}, sha256 {model.sha256[:12]}"]
    lines.append(f"added        {model.created_at.astimezone():%Y-%m-%d %H:%M:%S}, scored by {scorer.get('kind')}")
    if model.description:
        lines.append(f"about        {model.description}")
    if metrics := card.get("metrics"):
        lines.append(f"metrics      {', '.join(f'{name} {value:.6g}' for name, value in metrics.items())}")
    lines += [f"  {feature.name:24} {_type_of(dict(feature.body), feature.type)}" for feature in model.features]
    body = model.example if card.get("input") == "flat" else {card.get("wrapper", "features"): model.example}
    data = json.dumps(body, ensure_ascii=False).replace("'", "'\\''")  # the shell's way to write ' inside of '
    path = f"{url}/models/{model.name}@{model.version}/predict"
    lines.append(f"curl -s '{path}' -H 'Content-Type: application/json' -d '{data}'")
    return lines


def _type_of(feature: dict[str, Any], kind: str) -> str:
    nulls = " or null" if feature.get("nullable") else ""
    categories = feature.get("categories")
    if not categories:
        return kind + nulls
    shown = ", ".join(json.dumps(value, ensure_ascii=False) for value in categories[:SHOWN])
    more = f" or {len(categories) - SHOWN} more" if len(categories) > SHOWN else ""
    return f"{kind}: {shown}{more}{nulls}"


def _threshold(text: str | None) -> Any:  # noqa: ANN401 - a number, or a JSON document
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        return _document(text)


def _labels(text: str | None) -> Any:  # noqa: ANN401 - a JSON document
    if text is None or "=" not in text:
        return None if text is None else _document(text)
    pairs = [pair.partition("=") for pair in text.split(",")]
    return {key.strip(): label.strip() for key, _, label in pairs}


def _document(path: str) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise Unusable(f"{path} is not JSON: write it as JSON, in UTF-8.") from error

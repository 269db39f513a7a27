"""`python -m shared.registry`: add, list, verify, promote and put away model versions from a shell."""

# ruff: noqa: T201 - a command prints

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from shared.cards.card import Card
from shared.cards.features import Feature
from shared.commands import reproduction
from shared.commands.reference import add_file_options, add_parsers, csv_options_of
from shared.comparison.gate import Gate
from shared.config.addresses import is_address
from shared.config.settings import get_settings
from shared.database.engine import session_scope
from shared.database.messages import explain_database_error
from shared.errors import GuichetError
from shared.faults import counted
from shared.packages.artefacts.sklearn_versions import SCIKIT_LEARN
from shared.packages.fetching import Source, downloaded, upload_package
from shared.packages.sources.candidates import AddOptions
from shared.packages.sources.project_files import read_labels, read_metrics, read_threshold
from shared.registry.adding import add
from shared.registry.aliases import Change, list_events, promote, roll_back
from shared.registry.archiving import archive, delete, remove_files, restore
from shared.registry.loading import load, verify
from shared.registry.plan import describe_plan
from shared.registry.versions import CHAMPION, aliases_of, archived_ids, find_reference, list_versions
from shared.tables import ModelVersion

SHOWN = 5  # categories of a feature that are printed

CONTRACT_HELP = "part of a card that a client relies on: words, rules and limits; they replace those of the card"
SCORES_HELP = "column of the reference rows with the model's own scores where it was trained; refused if it differs"
THRESHOLD_HELP = "binary: probability from which on the answer is 1; the model's own when not given"
PROBABILITY_HELP = "binary, no probabilities: answer the sigmoid of decision_function as the probability"
PREPROCESSOR_HELP = "joblib file of the fitted transformer that comes before the model, where it was saved apart"
CODE_HELP = "your own .py file, or the folder with the modules that the model needs: it is carried along in the model"
TRUST_HELP = "types in a skops file that you trust, beside those that skops knows"
REASON_HELP = "the reason, for readers of the history"
LABELS_HELP = "names of the classes, or a JSON file of them; the left side is the model's own class, as in its classes_"
METRICS_HELP = (
    "JSON object of the training's metrics, name to number, for the card; "
    "without one, and with --target, it gets those of the reference rows"
)
THRESHOLD_FROM_HELP = "JSON file that holds the threshold: a number, or an object with one under `threshold`"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0, 1 when it was refused (the reason is on stderr), or 2 when it was not understood."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except GuichetError as error:
        print(f"error: {error.detail}", file=sys.stderr)
        return 1
    except SQLAlchemyError as error:
        print(f"error: {explain_database_error(error)}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m shared.registry", description="Model versions and their aliases.")
    commands = parser.add_subparsers(required=True, metavar="command")

    adding = commands.add_parser(
        "add",
        help="register model.joblib, a folder that holds one, or an MLflow model, as a new immutable version",
        description="A joblib file is a program: add only files whose origin you trust. So is the model of an MLflow "
        "folder (one with an MLmodel file), whose signature and input example become its card.",
    )
    adding.add_argument("artefact", metavar="model.joblib", help="a path, or an address: file://, s3:// or hf://")
    adding.add_argument("--reference", type=Path, help="rows like those it was trained on: CSV, .xlsx, .parquet, .json")
    adding.add_argument("--card", type=Path, help="model.json; inferred from the reference rows when there is none")
    adding.add_argument("--name", help="model name; the card's when not given")
    adding.add_argument("--version", type=_positive, help="version number; the next one when not given")
    adding.add_argument("--target", help="column of the reference rows that is the answer, not a feature")
    deciding = adding.add_mutually_exclusive_group()
    deciding.add_argument("--threshold", type=float, help=THRESHOLD_HELP)
    deciding.add_argument("--threshold-from", type=Path, metavar="threshold.json", help=THRESHOLD_FROM_HELP)
    adding.add_argument("--probability", choices=["sigmoid"], help=PROBABILITY_HELP)
    adding.add_argument("--labels", type=_labels, metavar="0=No,1=Yes|FILE", help=LABELS_HELP)
    adding.add_argument("--metrics", type=Path, metavar="metrics.json", help=METRICS_HELP)
    adding.add_argument(
        "--task", choices=["binary", "multiclass", "regression"], help="inferred from the model by default"
    )
    adding.add_argument("--contract", type=Path, metavar="contract.json", help=CONTRACT_HELP)
    adding.add_argument("--skip-bad", action="store_true", help="leave out reference rows that break the contract")
    adding.add_argument("--scores", metavar="COLUMN", help=SCORES_HELP)
    add_file_options(adding)
    adding.add_argument("--preprocessor", type=Path, metavar="pre.joblib", help=PREPROCESSOR_HELP)
    adding.add_argument("--code", type=Path, metavar="PATH", help=CODE_HELP)
    adding.add_argument("--trust", type=_names, default=[], metavar="TYPE,TYPE", help=TRUST_HELP)
    adding.add_argument("--alias", help=f"alias to move to the new version; a first version becomes {CHAMPION}")
    adding.set_defaults(run=_add)

    listing = commands.add_parser("list", help="list the versions, their aliases and how they are scored")
    listing.add_argument("name", nargs="?", metavar="name[@version]", help="one model only, or one version")
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    listing.set_defaults(run=_list)

    verifying = commands.add_parser("verify", help="check files, SHA-256, card and scorer of one version, or of all")
    verifying.add_argument("model", nargs="?", metavar="name[@version]", help=f"or @alias; its {CHAMPION} without")
    verifying.add_argument("--plan", action="store_true", help="print how a row becomes a score, step by step")
    verifying.set_defaults(run=_verify)

    promoting = commands.add_parser("promote", help="let an alias mean this version")
    promoting.add_argument("model", type=_reference, metavar="name@version|name@alias")
    promoting.add_argument("--alias", default=CHAMPION, help=f"which alias ({CHAMPION})")
    promoting.add_argument("--reason", help=REASON_HELP)
    promoting.add_argument("--force", action="store_true", help="in spite of PROMOTION_GATE; it is audited")
    promoting.set_defaults(run=_promote)

    returning = commands.add_parser("rollback", help="point an alias back to its version before the last move")
    returning.add_argument("name")
    returning.add_argument("--alias", default=CHAMPION, help=f"which alias ({CHAMPION})")
    returning.add_argument("--reason", help=REASON_HELP)
    returning.set_defaults(run=_roll_back)

    telling = commands.add_parser("history", help="list how a model's aliases were moved: when, from, to, who, why")
    telling.add_argument("name", metavar="name[@version]")
    telling.set_defaults(run=_history)

    for word, move, outcome, text in (
        ("archive", archive, "is archived: it takes no rows until it is restored", "put a version away"),
        ("restore", restore, "serves again", "let an archived version serve again"),
    ):
        moving = commands.add_parser(word, help=text)
        moving.add_argument("model", type=_reference, metavar="name@version|name@alias")
        moving.add_argument("--reason", help=REASON_HELP)
        moving.set_defaults(run=partial(_move, move=move, outcome=outcome))
    deleting = commands.add_parser("delete", help="delete an archived version that scored nothing, with its files")
    deleting.add_argument("model", type=_reference, metavar="name@version|name@alias")
    deleting.add_argument("--reason", help=REASON_HELP)
    deleting.set_defaults(run=_delete)

    reproduction.add_parser(commands)
    add_parsers(commands)
    return parser


def describe(row: ModelVersion, aliases: Sequence[str] = ()) -> str:
    """Return a version in one line: name, aliases, how it is scored, how exactly and how fast."""
    report: dict[str, Any] = row.scorer
    names = f" ({', '.join(aliases)})" if aliases else ""
    exactness = "" if report["max_abs_diff"] is None else f"largest difference {report['max_abs_diff']:.1e}, "
    speed = "speed not measured"
    if report.get("one_row_us") and report.get("rows_per_s"):
        speed = f"{report['one_row_us']:.0f} us a row, {report['rows_per_s']:,.0f} rows/s"
    return (
        f"{row.name}@{row.version}{names}: {row.card['task']}, {counted(len(row.card['features']), 'feature')}, "
        f"sha256 {row.sha256[:12]}…; scored by {report['kind']}, {counted(report['rows_checked'], 'row')} checked "
        f"against the pipeline ({exactness}decisions that differ: {report['decisions_differ']}), {speed}"
    )


def _add(options: argparse.Namespace) -> int:
    chosen = {
        field.name: getattr(options, field.name)
        for field in fields(AddOptions)
        if field.name not in ("csv", "is_candidate")
    }
    if isinstance(options.labels, Path):
        chosen["labels"] = read_labels(options.labels)
    if options.metrics is not None:
        chosen["metrics"] = read_metrics(options.metrics)
    if options.threshold_from is not None:
        chosen["threshold"] = read_threshold(options.threshold_from)
    add_options = AddOptions(**chosen, csv=csv_options_of(options))
    settings = get_settings()
    with _at_hand(options.artefact, add_options) as source, session_scope() as session:
        uri = None if settings.models_uri else source.address
        row = add(session, source.path, add_options, uri=uri, gate=Gate.of(settings))
        upload_package(row, settings.models, settings.models_uri)
        # Whatever cannot be said of it is found before the COMMIT, after which it serves.
        aliases = aliases_of(session).get(row.id, [])
        takes = _what_it_takes(row, is_default=CHAMPION in aliases)
        lines = [describe(row, aliases), _checks(row), takes]
    print("\n".join(filter(None, lines)))
    return 0


def _what_it_takes(row: ModelVersion, *, is_default: bool) -> str:
    """Print the features of a model, the unused columns of the reference rows, and a request for a prediction."""
    card = Card.model_validate(row.card)
    features = ", ".join(f"{feature.name} ({_type_of(feature)})" for feature in card.features)
    lines = [f"Features: {features}."]
    left = [f"{column} (the target)" if column == card.target else column for column in row.scorer.get("left_out", [])]
    if left:
        lines.append(f"Left out, as no features of the model: {', '.join(left)}.")
    if card.notes:
        lines.append(card.notes)
    body = card.example() if card.input == "flat" else {card.wrapper: card.example()}
    body |= {} if is_default else {"version": row.version}
    data = json.dumps(body, ensure_ascii=False).replace("'", "'\\''")  # the shell's way to write ' inside of '
    lines.append("Try it where the service runs (`make run`):")
    lines.append(
        f"curl -s 'http://127.0.0.1:{get_settings().port}/models/{card.name}/predict' "
        f"-H 'Content-Type: application/json' -d '{data}'"
    )
    return "\n".join(lines)


def _type_of(feature: Feature) -> str:
    nulls = " or null" if feature.nullable else ""
    if feature.categories is None:
        return feature.type + nulls
    shown = [json.dumps(value, ensure_ascii=False) for value in feature.categories[:SHOWN]]
    more = f" or {len(feature.categories) - SHOWN} more" if len(feature.categories) > SHOWN else ""
    return f"{feature.type}: {', '.join(shown)}{more}{nulls}"


def _checks(row: ModelVersion) -> str:
    """Return the result of comparing scores, or of loading another scikit-learn's model; empty without either."""
    saved, installed = row.card.get("libraries", {}).get(SCIKIT_LEARN), version(SCIKIT_LEARN)
    scores = row.scorer.get("scores")
    parts = []
    if refused := row.scorer.get("refused_rows"):
        more = refused["count"] - len(refused["rows"])
        parts.append(
            f"The model refuses {refused['count']} of the sampled reference rows, which were left out: "
            f"{', '.join(refused['rows'])}{f' and {more} more' if more else ''}. Callers get 422 for such rows."
        )
    if saved not in (None, installed):
        classes = f" and its {len(row.card['labels'])} classes" if row.card.get("labels") else ""
        parts.append(
            f"scikit-learn {saved} saved this model, and {installed} is installed here. Checked: it loads, its "
            f"{len(row.card['features'])} features{classes} are those of its card, it scores its "
            f"{row.scorer.get('reference_rows', 'own')} reference rows, and {row.scorer['kind']} answers as its "
            "pipeline does."
        )
        if scores is None:
            parts.append(
                "Not checked: whether it gives the scores that it gave there. Have it write them beside some rows, and "
                "add it with those as --reference and their column as --scores."
            )
    if scores is not None:
        parts.append(
            f"Its scores are those of the column {scores['column']}: largest difference {scores['max_abs_diff']:.1e} "
            f"over {counted(scores['rows'], 'row')}."
        )
    return " ".join(parts)


@contextmanager
def _at_hand(artefact: str, options: AddOptions) -> Iterator[Source]:
    """Yield the model to add, fetched if it lies in a store; another card or other rows make it another package."""
    if not is_address(artefact):
        yield Source(Path(artefact), None)
        return
    with downloaded(artefact, get_settings().models) as source:
        yield source if _is_as_it_lies(options) else Source(source.path, None)


def _is_as_it_lies(options: AddOptions) -> bool:
    others = (options.reference, options.card, options.contract, options.preprocessor, options.code)
    return all(other is None for other in others)


def _list(options: argparse.Namespace) -> int:
    with session_scope(read_only=True) as session:
        if options.name is not None and "@" in options.name:
            rows = [find_reference(session, options.name)]
        else:
            rows = list_versions(session, options.name)
        aliases = aliases_of(session)
        archived = archived_ids(session)
    broken = 0
    for row in rows:
        try:
            print(_listed(row, aliases.get(row.id, []), row.id in archived, as_json=options.json))
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # the others are to be listed all the same
            print(
                f"error: the entry of {row.name}@{row.version} cannot be read ({type(error).__name__}: {error}): add "
                "the model again as a new version.",
                file=sys.stderr,
            )
            broken += 1
    if not rows:
        print("No model is registered yet.", file=sys.stderr)
    return 1 if broken else 0


def _listed(row: ModelVersion, aliases: Sequence[str], is_archived: bool, *, as_json: bool) -> str:
    if not as_json:
        return describe(row, ["archived"] if is_archived else aliases)
    content = {"name": row.name, "version": row.version, "sha256": row.sha256, "aliases": list(aliases)}
    more = {"archived": is_archived, "created_at": row.created_at.isoformat(), "scorer": row.scorer}
    return json.dumps(content | more)


def _verify(options: argparse.Namespace) -> int:
    if options.plan and not options.model:
        print("error: name the model whose plan is to be printed: verify NAME --plan", file=sys.stderr)
        return 1
    with session_scope(read_only=True) as session:
        if options.model:
            row = find_reference(session, options.model)
            print(_sound(verify(session, row.name, row.version)))
            if options.plan:
                print("\n".join(describe_plan(row, load(row, get_settings().models))))
            return 0
        bad = 0
        for name, version in [(row.name, row.version) for row in list_versions(session)]:
            try:
                print(_sound(verify(session, name, version)))
            except SQLAlchemyError:  # the database's fault, not this version's
                raise
            except Exception as error:  # noqa: BLE001 - the estimator is anyone's code, and the others are to be checked
                reason = error.detail if isinstance(error, GuichetError) else f"{type(error).__name__}: {error}"
                print(f"error: {name}@{version}: {reason}", file=sys.stderr)
                bad += 1
    return 1 if bad else 0


def _sound(report: dict[str, Any]) -> str:
    differing = ", ".join(report["other_library_versions"]) or "none"
    kind, registered = report["scorer"], report["registered_scorer"]
    fallback = "" if kind == registered else f" {registered} is not exact any more, so it is not used."
    return (
        f"{report['model']}: sound. SHA-256, card and artefact agree; {kind} gives the pipeline's answers on "
        f"{counted(report['reference_rows'], 'reference row')}.{fallback} Other library versions: {differing}."
    )


def _promote(options: argparse.Namespace) -> int:
    with session_scope() as session:
        row = find_reference(session, options.model)
        change = Change(options.reason, is_forced=options.force)
        promote(session, row.name, row.version, options.alias, change, gate=Gate.of(get_settings()))
    print(f"{row.name}@{row.version} is now the {options.alias} of {row.name}.")
    return 0


def _roll_back(options: argparse.Namespace) -> int:
    with session_scope() as session:
        row = roll_back(session, options.name, options.alias, Change(options.reason))
    print(f"{row.name}@{row.version} is the {options.alias} of {row.name} again.")
    return 0


def _history(options: argparse.Namespace) -> int:
    with session_scope(read_only=True) as session:
        name, at, _ = options.name.partition("@")
        version = None
        if at or not list_versions(session, name):
            version = find_reference(session, options.name).version  # or it says what there is
        events, _ = list_events(session, name, version=version, limit=1_000)
    for event in events:
        moved = f"{event['from'] or 'none'} -> {event['to'] or 'none'}"
        why = f": {event['reason']}" if event["reason"] else ""
        print(f"{event['created_at']:%Y-%m-%d %H:%M:%S}  {event['alias']:12}  {moved:12}  {event['actor']}{why}")
    return 0


def _move(options: argparse.Namespace, *, move: Callable[..., ModelVersion], outcome: str) -> int:
    with session_scope() as session:
        row = find_reference(session, options.model)
        move(session, row.name, row.version, Change(options.reason))
    print(f"{row.name}@{row.version} {outcome}.")
    return 0


def _delete(options: argparse.Namespace) -> int:
    with session_scope() as session:
        version = find_reference(session, options.model)
        row = delete(session, version.name, version.version, Change(options.reason))
    left = remove_files(row, get_settings().models)
    print(f"{row.name}@{row.version} is deleted.")
    if left is not None:
        print(f"error: {left} could not be removed: remove it by hand.", file=sys.stderr)
    return 0 if left is None else 1


def _reference(text: str) -> str:
    name, _, version = text.partition("@")
    if not name or not version or version == "0":
        raise argparse.ArgumentTypeError("write it as name@version or name@alias, e.g. attrition@2")
    return text


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("a version is a number from 1 on")
    return int(text)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _labels(text: str) -> dict[str, str] | Path:
    if "=" not in text and text.endswith(".json"):
        return Path(text)
    pairs = [pair.partition("=") for pair in text.split(",")]
    if any(not at or not key.strip() or not label.strip() for key, at, label in pairs):
        raise argparse.ArgumentTypeError("write them as class=label, e.g. 0=Reste,1=Part, or name a .json file")
    return {key.strip(): label.strip() for key, _, label in pairs}

"""`python -m shared.registry reference` and `views`: a model's reference data, and its SQL views for clients."""

# ruff: noqa: T201 - a command prints

import argparse
import json
import re
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from shared.cards.numbers import DECIMALS, THOUSANDS
from shared.csv.format import DELIMITERS, ENCODINGS, CsvOptions
from shared.csv.output import fault_column
from shared.database.engine import get_engine, session_scope
from shared.errors import RowFaults
from shared.faults import Fault
from shared.reference.data import StoredSet, drop_set, list_sets
from shared.views.select import KINDS
from shared.views.views import View, drop_views, make_views

_LOAD = (
    "The file replaces what was loaded before: as a whole, or not at all. Encoding, delimiter and decimal mark are "
    "detected where they are not given; columns that are neither features nor the target are left out."
)
_VIEWS = (
    "The views have one typed column for each feature of the champion's card. Run this again when another card serves. "
    "Their names: those given here, or the card's own (`views`), or those that they have, or NAME_inputs and so on."
)

_ROW = re.compile(r"/rows/(\d+)(|/.*)", re.DOTALL)


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `reference` and `views` to the registry's commands."""
    data = commands.add_parser("reference", help="load, list and drop rows like those that a model was trained on")
    actions = data.add_subparsers(required=True, metavar="action")

    loading = actions.add_parser(
        "load", help="load a CSV file, also compressed by gzip, or an .xlsx workbook", description=_LOAD
    )
    loading.add_argument("file", type=Path, metavar="rows.csv")
    loading.add_argument("--model", required=True, metavar="NAME", help="model that the rows are for")
    loading.add_argument("--version", type=int, help="version whose card checks the rows; the champion by default")
    loading.add_argument("--target", metavar="COLUMN", help="column of the true answers; the card's target by default")
    add_file_options(loading)
    loading.add_argument("--skip-bad", action="store_true", help="leave out the rows that do not fit the card")
    loading.set_defaults(run=_load)

    listing = actions.add_parser("list", help="list which models have reference data, and from which files")
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    listing.set_defaults(run=_list)

    dropping = actions.add_parser("drop", help="forget the reference data of a model")
    dropping.add_argument("model", metavar="NAME")
    dropping.set_defaults(run=_drop)

    views = commands.add_parser("views", help="make or drop the SQL views of a model", description=_VIEWS)
    views.add_argument("model", nargs="?", metavar="NAME", help="the model; with --drop alone: all models")
    for kind, what in zip(KINDS, ("what was asked", "what was answered", "reference data"), strict=True):
        views.add_argument(f"--{kind}", metavar="VIEW", help=f"name of the view of {what}")
    views.add_argument("--drop", action="store_true", help="drop the views, e.g. to let a migration pass")
    views.set_defaults(run=_views, refuse=views.error)


def add_file_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for the format of a file."""
    parser.add_argument("--encoding", help=f"one of {', '.join(ENCODINGS)}")
    parser.add_argument("--delimiter", help=f"one of {', '.join(DELIMITERS)}, or the character itself")
    parser.add_argument("--decimal", help=f"one of {', '.join(DECIMALS)}")
    parser.add_argument("--thousands", help=f"what separates thousands: one of {', '.join(THOUSANDS)}")


def csv_options_of(options: argparse.Namespace) -> CsvOptions:
    """Return the options for the format of a file."""
    return CsvOptions(
        delimiter=options.delimiter, encoding=options.encoding, decimal=options.decimal, thousands=options.thousands
    )


def _load(options: argparse.Namespace) -> int:
    from shared.reference.load import load  # heavy: the other commands do without

    try:
        loaded = load(
            get_engine(),
            options.file,
            model=options.model,
            version=options.version,
            target=options.target,
            csv_options=csv_options_of(options),
            skip_bad=options.skip_bad,
        )
    except RowFaults as error:
        _tell(error.faults)
        raise
    if loaded.unchanged:
        print(f"Nothing to do, the same file is loaded already. {describe(loaded.stored)}")
        return 0
    for notice in loaded.notices:
        print(notice, file=sys.stderr)
    _tell(loaded.bad.shown)
    more = loaded.bad.fault_count - len(loaded.bad.shown)
    if more:
        print(f"and {more:,} more faults", file=sys.stderr)
    print(describe(loaded.stored))
    if loaded.ignored:
        print(f"Left out, since the model has no such features: {', '.join(loaded.ignored)}.")
    if loaded.replaced is not None:
        print(f"Replaced: {describe(loaded.replaced)}")
    return 0


def describe(stored: StoredSet) -> str:
    """Return a model's reference data in one line."""
    words = {character: word for word, character in {**THOUSANDS, **DELIMITERS, **DECIMALS}.items()}
    form = f"{stored.encoding}, delimiter {words[stored.delimiter]}, decimal {words[stored.decimal]}"
    form += f", thousands {words[stored.thousands]}" if stored.thousands else ""
    target = f"target {stored.target}" if stored.target else "no target"
    skipped = f", {stored.skipped_count:,} left out" if stored.skipped_count else ""
    rows = f"{stored.row_count:,} row{'s' * (stored.row_count != 1)}"
    return (
        f"{stored.model}: {rows}{skipped}, {target}, from {stored.filename} (sha256 "
        f"{stored.sha256[:12]}…, {form}), loaded {stored.created_at:%Y-%m-%d %H:%M} UTC against "
        f"{stored.model}@{stored.version}."
    )


def _tell(faults: Iterable[Fault]) -> None:
    """Write the faults of rows to stderr, never their values."""
    for fault in faults:
        if match := _ROW.fullmatch(fault.pointer):
            column = fault_column(Fault(match[2], fault.code, fault.message))
            where = f"row {match[1]}, {column}" if column else f"row {match[1]}"
            print(f"{where}: {fault.message} ({fault.code})", file=sys.stderr)


def _list(options: argparse.Namespace) -> int:
    with session_scope(read_only=True) as session:
        stored_sets = list_sets(session.connection())
    for stored in stored_sets:
        if options.json:
            facts: dict[str, Any] = {name: getattr(stored, name) for name in stored.__dataclass_fields__}
            print(json.dumps(facts | {"created_at": stored.created_at.isoformat()}, ensure_ascii=False))
        else:
            print(describe(stored))
    if not stored_sets:
        print("No model has reference data yet.", file=sys.stderr)
    return 0


def _drop(options: argparse.Namespace) -> int:
    with session_scope() as session:
        dropped = drop_set(session.connection(), options.model)
    print(f"Dropped: {describe(dropped)}")
    return 0


def _views(options: argparse.Namespace) -> int:
    names = {kind: getattr(options, kind) for kind in KINDS}
    if options.drop:
        if any(names.values()):
            options.refuse("--drop drops all views of a model: leave out their names")
        with session_scope() as session:
            _tell_dropped(drop_views(session.connection(), options.model))
        return 0
    if options.model is None:
        options.refuse("say which model's views to make")
    with session_scope() as session:
        made = make_views(session, options.model, names)
    for each in made:
        print(f"{each.view.name}: the {each.view.kind} of {each.view.model}, {each.how}")
        if each.former is not None:
            print(f"{each.former} is gone: it is called {each.view.name} now, with the rights that were granted on it")
    return 0


def _tell_dropped(views: list[View]) -> None:
    if not views:
        print("There are no such views.", file=sys.stderr)
    for model in dict.fromkeys(view.model for view in views):
        own = [view for view in views if view.model == model]
        again = " ".join(f"--{view.kind} {shlex.quote(view.name)}" for view in own)
        print(f"Dropped {', '.join(view.name for view in own)}. To make them again:")
        print(f"  python -m shared.registry views {model} {again}")

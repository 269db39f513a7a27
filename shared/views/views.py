"""SQL views of a model, for clients that read tables of their own layout.

`inputs` holds what was asked, `predictions` what was answered, `reference` the reference data. Each carries a mark
that says whose it is; what carries none is never replaced or dropped.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from shared.cards.card import Card
from shared.errors import CardError, Conflict, NotFound
from shared.registry.versions import resolve
from shared.tables import ReferenceSet
from shared.views.select import KINDS, NAME_BYTES, ViewKind, digest, literal, quote, select_of

log = logging.getLogger(__name__)

_MARK = re.compile(r"guichet view: (inputs|predictions|reference) of ([a-z][a-z0-9_-]*) \(([0-9a-f]{12})\)")
_SYSTEM = ("pg_", "sqlite_")
_DEPENDED_ON = "2BP01"  # SQLSTATE: another object is made of it

_POSTGRES_RELATIONS = text(
    "SELECT c.relname AS name, c.relkind = 'v' AS is_view, obj_description(c.oid, 'pg_class') AS comment "
    "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = current_schema()"
)
_SQLITE_RELATIONS = text("SELECT name, type = 'view' AS is_view, sql AS comment FROM sqlite_master")
_GRANTS = text(
    "SELECT a.privilege_type, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END, a.is_grantable "
    "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) a "
    "WHERE n.nspname = current_schema() AND c.relname = :name AND a.grantee <> c.relowner"
)


@dataclass(frozen=True, slots=True)
class View:
    """One of our views in the database."""

    kind: ViewKind
    model: str
    name: str
    digest: str  # of the SELECT that it was made from


@dataclass(frozen=True, slots=True)
class ViewChange:
    """What became of a view."""

    view: View
    how: Literal["made", "replaced", "unchanged"]
    former: str | None = None  # the name that it had until now, and has no longer


def list_views(connection: Connection, model: str | None = None) -> list[View]:
    """Return our views, of one model or of all, by model and kind."""
    views = [view for view in _relations(connection).values() if view is not None]
    chosen = [view for view in views if model in (None, view.model)]
    return sorted(chosen, key=lambda view: (view.model, KINDS.index(view.kind)))


def make_views(session: Session, model: str, names: Mapping[ViewKind, str | None] | None = None) -> list[ViewChange]:
    """Make the views of a model by its champion's card; those that are there already follow the card.

    A view has the given name, or else the card's, or the one that it has, or `<model>_<kind>`. Views that a client
    may read keep their grants. Raises NotFound, CardError, or Conflict where a name is taken.
    """
    connection = session.connection()
    champion = resolve(session, model)
    card = Card.model_validate(champion.card)
    loaded = session.scalar(select(ReferenceSet.target).where(ReferenceSet.model_name == model))
    present = list_views(connection, model)
    return _remake(connection, card, present, _names(card, present, names or {}), target=loaded)


def drop_views(connection: Connection, model: str | None = None) -> list[View]:
    """Drop our views, of one model or of all, and return them; raise Conflict if other views depend on them."""
    views = list_views(connection, model)
    for view in views:
        _drop(connection, view)
    return views


@contextmanager
def without_views(connection: Connection) -> Iterator[None]:
    """Drop the views during a migration of their tables, and make them again."""
    grants = {view.name: _grants(connection, view.name, onto=view.name) for view in list_views(connection)}
    dropped = drop_views(connection)
    yield
    with Session(connection) as session:
        for model in dict.fromkeys(view.model for view in dropped):
            names = {view.kind: view.name for view in dropped if view.model == model}
            try:
                make_views(session, model, names)
            except (CardError, NotFound) as error:  # no champion any more: this must not end a migration
                log.warning("the views %s are gone: %s", ", ".join(names.values()), error.detail)
                continue
            _grant(connection, [statement for name in names.values() for statement in grants[name]])


def _names(card: Card, present: list[View], names: Mapping[ViewKind, str | None]) -> dict[ViewKind, str]:
    card_names = card.views.model_dump() if card.views is not None else {}
    there = {view.kind: view.name for view in present}
    usual = card.name.replace("-", "_")
    return {kind: names.get(kind) or card_names.get(kind) or there.get(kind) or f"{usual}_{kind}" for kind in KINDS}


def _remake(
    connection: Connection, card: Card, present: list[View], names: Mapping[ViewKind, str], *, target: str | None
) -> list[ViewChange]:
    _check_names(connection, card.name, names)
    selects = {kind: select_of(kind, card, connection.dialect.name, target=target) for kind in KINDS}
    views = {kind: View(kind, card.name, names[kind], digest(sql)) for kind, sql in selects.items()}
    before = {view.kind: view for view in present}
    grants = {kind: _grants(connection, view.name, onto=names[kind]) for kind, view in before.items()}
    for kind, view in before.items():
        if view != views[kind]:
            _drop(connection, view)
    made: list[ViewChange] = []
    for kind, view in views.items():
        if before.get(kind) == view:
            made.append(ViewChange(view, "unchanged"))
            continue
        _create(connection, view, selects[kind])
        _grant(connection, grants.get(kind, []))
        former = before[kind].name if kind in before and before[kind].name != view.name else None
        made.append(ViewChange(view, "replaced" if kind in before else "made", former))
    return made


def _check_names(connection: Connection, model: str, names: Mapping[ViewKind, str]) -> None:
    """Raise CardError for a name that no view can have, and Conflict for one that is taken."""
    relations = _relations(connection)
    postgres = connection.dialect.name == "postgresql"
    by_key = relations if postgres else {name.lower(): view for name, view in relations.items()}
    seen: set[str] = set()
    for kind, name in names.items():
        key = name if postgres else name.lower()
        if not name.isprintable() or len(name.encode()) > NAME_BYTES or key.lower().startswith(_SYSTEM):
            raise CardError(
                f"The view {kind} of {model} cannot have this name: give 1 to {NAME_BYTES} bytes of printable text, "
                "not starting with pg_ or sqlite_, as the database's own tables do."
            )
        if key in seen:
            raise CardError(f"Two views of {model} would be called {name!r}: give each a name of its own.")
        seen.add(key)
        owner = by_key.get(key)
        if owner is not None and owner.model != model:
            raise Conflict(
                f"The view {name!r} belongs to {owner.model}: give another name, or drop it with "
                f"`python -m shared.registry views {owner.model} --drop`."
            )
        if key in by_key and owner is None:
            raise Conflict(
                f"There is already a table or a view {name!r} that Guichet did not make as one of a model's views: it "
                f"is left alone. Give another name with --{kind}, or remove it yourself."
            )


def _relations(connection: Connection) -> dict[str, View | None]:
    """Return everything that has a name as tables do, by name: our views, None for all else."""
    query = _POSTGRES_RELATIONS if connection.dialect.name == "postgresql" else _SQLITE_RELATIONS
    relations: dict[str, View | None] = {}
    for name, is_view, comment in connection.execute(query):
        # On SQLite, what follows the name: a name may be like a mark itself.
        begin = "" if connection.dialect.name == "postgresql" else f"CREATE VIEW {quote(name)} AS /* "
        is_marked = is_view and (comment or "").startswith(begin)
        mark = _MARK.match(comment.removeprefix(begin)) if is_marked and comment else None
        relations[name] = View(mark[1], mark[2], name, mark[3]) if mark else None  # type: ignore[arg-type]
    return relations


def _create(connection: Connection, view: View, sql: str) -> None:
    mark = f"guichet view: {view.kind} of {view.model} ({view.digest})"
    if connection.dialect.name == "postgresql":
        _run(connection, f"CREATE VIEW {quote(view.name)} AS {sql}")
        _run(connection, f"COMMENT ON VIEW {quote(view.name)} IS {literal(mark)}")
    else:  # SQLite keeps the text of the statement, and has no comments of its own
        _run(connection, f"CREATE VIEW {quote(view.name)} AS /* {mark} */ {sql}")


def _drop(connection: Connection, view: View) -> None:
    try:
        _run(connection, f"DROP VIEW {quote(view.name)}")
    except DBAPIError as error:
        if getattr(error.orig, "pgcode", None) != _DEPENDED_ON:
            raise
        raise Conflict(
            f"The view {view.name!r} cannot be dropped or replaced, because views that Guichet did not make are made "
            "of it: drop those first, and make them again afterwards."
        ) from error


def _grants(connection: Connection, name: str, *, onto: str) -> list[str]:
    """Return the statements that give others, on the view `onto`, the rights that they have on this one now."""
    if connection.dialect.name != "postgresql":
        return []
    rows = connection.execute(_GRANTS, {"name": name})
    return [
        f"GRANT {right} ON {quote(onto)} TO {role}{' WITH GRANT OPTION' if onward else ''}"
        for right, role, onward in rows
    ]


def _grant(connection: Connection, statements: list[str]) -> None:
    for statement in statements:
        _run(connection, statement)


def _run(connection: Connection, sql: str) -> None:
    # Without parameters no driver takes a % in a feature's name for one.
    connection.exec_driver_sql(sql, execution_options={"no_parameters": True})

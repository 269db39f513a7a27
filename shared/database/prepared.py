"""Prepared statements for the hot path, and arrays as the literals that PostgreSQL parses fastest.

psycopg2 sends values inside the statement, so that PostgreSQL plans it anew every time: 0.4 ms for a claim, more than
its execution takes. Here a statement is prepared once on each connection and executed by name. An array is one
literal ('{1,2}') instead of an expression with one node for each element.
"""

import itertools
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, CursorResult

_numbers = itertools.count(1)

PLAN_SECONDS = 60.0  # a plan that was made when the tables were small is not kept for ever


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement with `$1`-style parameters of these types."""

    name: str
    types: Sequence[str]
    sql: str

    def run(self, connection: Connection, *parameters: object) -> CursorResult[*tuple[Any, ...]]:
        """Execute it; prepare it on this connection before the first time, and again every minute."""
        prepared: dict[str, tuple[str, float]] = connection.info.setdefault("prepared", {})
        now = time.monotonic()
        name, prepared_at = prepared.get(self.name, ("", 0.0))
        if not name or now - prepared_at > PLAN_SECONDS:
            # A new name each time, and the old one goes last: whichever of the two fails, the next run is not misled.
            old, name = name, f"{self.name}_{next(_numbers)}"
            connection.exec_driver_sql(f"PREPARE {name} ({', '.join(self.types)}) AS {_escape(self.sql)}")
            prepared[self.name] = (name, now)
            if old:
                connection.exec_driver_sql(f"DEALLOCATE {old}")
        return connection.exec_driver_sql(f"EXECUTE {name} ({', '.join(['%s'] * len(parameters))})", tuple(parameters))


def _escape(sql: str) -> str:
    return sql.replace("%", "%%")


def array(values: Iterable[object]) -> str:
    """Return a one-dimensional array literal of numbers, texts and nulls (PostgreSQL manual, 8.15.2)."""
    return "{" + ",".join([_element(value) for value in values]) + "}"


def _element(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(value)

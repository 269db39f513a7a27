"""Example rows of a model, made up from its card, and as a CSV file."""

from collections.abc import Sequence
from typing import Any

from starlette.concurrency import run_in_threadpool

from api.models.catalog import Version
from shared.cards.examples import example_rows


async def draw_rows(version: Version, count: int) -> list[dict[str, Any]]:
    """Return at most `count` rows that the version takes; the same ones at every call."""
    # Variations that break the rules are drawn again: milliseconds, which others should not wait for.
    return await run_in_threadpool(example_rows, version.validator, count)


def rows_as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Return one or more rows as a CSV file with a header, as `/predict_csv` takes it: booleans in lower case.

    A text that a spreadsheet would run as a formula has an apostrophe before it, as in every CSV file of the service.
    """
    from shared.csv.output import escape  # numpy comes with it

    lines = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    # An empty line would be no row.
    return "".join((",".join(escape(cell, ",") for cell in line) or '""') + "\n" for line in lines)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)

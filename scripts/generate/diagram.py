"""The ER diagram of the tables as SVG: a column for each depth of foreign keys, the tables without any below."""

from html import escape

from sqlalchemy import Column
from sqlalchemy import Table as SqlTable

WIDTH, LINE, HEAD, GAP, FONT = 212, 18, 26, 16, 13
COLUMN = WIDTH + 88
_HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" \
font-family="DejaVu Sans, Arial, sans-serif" font-size="{font}" role="img" aria-label="Tables and their foreign keys">
<rect width="{width}" height="{height}" fill="#ffffff"/>
"""


def draw(tables: list[SqlTable]) -> str:
    """Return the SVG of these tables; a box has its keys, and an arrow leads from a foreign key to its table.

    A dashed arrow is a key that may be null.
    """
    linked = {table for table in tables if table.foreign_key_constraints}
    linked |= {key.referred_table for table in tables for key in table.foreign_key_constraints}
    columns: list[list[SqlTable]] = []
    for table in tables:
        if table in linked:
            depth = _depth(table)
            columns += [[] for _ in range(depth + 1 - len(columns))]
            columns[depth].append(table)
    places: dict[SqlTable, tuple[int, int]] = {}
    bottom = 0
    for number, column in enumerate(columns):
        y = GAP
        for table in sorted(column, key=lambda table: _height_of_parents(table, places)):
            places[table] = (GAP + number * COLUMN, y)
            y += _height(table) + GAP
        bottom = max(bottom, y)
    width = GAP + len(columns) * COLUMN - (COLUMN - WIDTH) + GAP
    alone = [table for table in tables if table not in linked]
    for number, table in enumerate(alone):
        row, place = divmod(number, len(columns))
        places[table] = (GAP + place * COLUMN, bottom + GAP + row * (HEAD + 2 * LINE + GAP))
    height = bottom if not alone else max(places[table][1] + _height(table) for table in alone) + GAP
    arrows = [_arrow(column, places) for table in linked for column in table.columns if column.foreign_keys]
    boxes = [_box(table, *places[table]) for table in places]
    return _HEAD.format(width=width, height=height, font=FONT) + "\n".join([*sorted(arrows), *boxes]) + "\n</svg>\n"


def _depth(table: SqlTable) -> int:
    parents = {key.referred_table for key in table.foreign_key_constraints} - {table}
    return max((_depth(parent) + 1 for parent in parents), default=0)


def _height_of_parents(table: SqlTable, places: dict[SqlTable, tuple[int, int]]) -> tuple[float, str]:
    """Return where the tables that a table refers to are, so that arrows cross less."""
    heights = [places[key.referred_table][1] for key in table.foreign_key_constraints if key.referred_table in places]
    return (sum(heights) / len(heights) if heights else 0.0), table.name


def _keys(table: SqlTable) -> list[Column[object]]:
    return [column for column in table.columns if column.primary_key or column.foreign_keys]


def _height(table: SqlTable) -> int:
    return HEAD + LINE * len(_keys(table)) + 6


def _box(table: SqlTable, x: int, y: int) -> str:
    height = _height(table)
    lines = [
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{height}" rx="6" fill="#ffffff" stroke="#0b6070"/>',
        f'<path d="M{x} {y + HEAD}h{WIDTH}" stroke="#0b6070"/>',
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEAD}" rx="6" fill="#e3f1f3" stroke="#0b6070"/>',
        f'<text x="{x + 10}" y="{y + 18}" font-weight="bold" fill="#1b1f23">{escape(table.name)}</text>',
    ]
    for number, column in enumerate(_keys(table)):
        level = y + HEAD + LINE * number + 16
        mark = ", ".join(word for word, holds in (("PK", column.primary_key), ("FK", column.foreign_keys)) if holds)
        lines.append(f'<text x="{x + 10}" y="{level}" fill="#1b1f23">{escape(column.name)}</text>')
        lines.append(f'<text x="{x + WIDTH - 10}" y="{level}" text-anchor="end" fill="#57606a">{mark}</text>')
    return "\n".join(lines)


def _arrow(column: Column[object], places: dict[SqlTable, tuple[int, int]]) -> str:
    [key] = column.foreign_keys
    table, other = column.table, key.column.table
    x, y = places[table]
    start = y + HEAD + LINE * _keys(table).index(column) + 12
    left, top = places[other]
    end, target = top + HEAD // 2, left + WIDTH
    dash = ' stroke-dasharray="5 4"' if column.nullable else ""
    bend = 44
    curve = f"M{x} {start}C{x - bend} {start} {target + bend} {end} {target} {end}"
    tip = f"M{target} {end}l8 -5v10z"
    title = f"<title>{escape(table.name)}.{escape(column.name)} → {escape(other.name)}</title>"
    line = f'<path d="{curve}" fill="none" stroke="#7a9aa1"{dash}/><path d="{tip}" fill="#7a9aa1"/>'
    return f"<g>{title}{line}</g>"

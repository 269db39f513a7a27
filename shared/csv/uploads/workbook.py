"""An Excel workbook as CSV text: its first visible sheet, or a named one, with the values of its cells.

Lines above the table that have one cell at most, such as a title, are left out, and the notice says so. Values of
formulas are those that the workbook stores; a second notice names the cells that have none.

The file is a stranger's, and a small one can ask for all memory that there is (a cell in the last corner of a sheet).
So a process of its own reads it, with bounded memory and time; this file is also that process's program.
"""

import contextlib
import datetime
import itertools
import posixpath
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from typing import IO, Any
from xml.etree import ElementTree

MEMORY_BYTES = 1 << 30  # of the process that reads a workbook: some ten million cells
CPU_SECONDS = 60
PIECE_BYTES = 1 << 18
MARK = b"PK\x03\x04"


class BadWorkbook(Exception):
    """The file is no workbook, or too large a one; its text is the end of a sentence."""


def is_workbook(head: bytes) -> bool:
    """Return whether a file that begins so is an .xlsx workbook (an OOXML package, ECMA-376 part 2)."""
    return head.startswith(MARK) and (b"xl/" in head or b"[Content_Types]" in head)


def read_workbook(path: str, sheet: str | None = None) -> Iterator[bytes]:
    """Yield a sheet as CSV in UTF-8, the first visible one if none is named; the last piece has notices after a NUL.

    Raises BadWorkbook.
    """
    with tempfile.TemporaryFile() as errors:
        command = [sys.executable, "-I", __file__, path, *([] if sheet is None else [sheet])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as child:
            assert child.stdout is not None
            try:
                while piece := child.stdout.read(PIECE_BYTES):
                    yield piece
            finally:
                child.stdout.close()
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
        errors.seek(0)
        message = errors.read(1000).decode("utf-8", "replace").strip()
    if child.returncode == 0:
        yield b"\x00" + message.encode()
    elif child.returncode == REFUSED:
        raise BadWorkbook(message)
    else:
        raise BadWorkbook("it takes more memory or time than a workbook may: save the sheet as CSV UTF-8 and send that")


# ── the process ──────────────────────────────────────────────────────────────────────────────────────────────────

REFUSED = 3
TITLE_LINES = 20  # in which the table begins
NAMED = 10  # sheets in a refusal
NAMED_CELLS = 3  # in a notice
NOT_COMPUTED = "a formula without a stored value"  # of the notice about such cells
_CELL = re.compile(  # that has a formula, then an empty value or none
    rb"<(?:\w+:)?c(\s[^<>]*)>\s*<(?:\w+:)?f(?:\s[^<>]*)?(?:/>|>[^<]*</(?:\w+:)?f>)\s*"
    rb"(<(?:\w+:)?v\s*/>|<(?:\w+:)?v(?:\s[^<>]*)?></(?:\w+:)?v>)?\s*</(?:\w+:)?c>"
)
_LONGEST_CELL = 1 << 20  # bytes: Excel's longest text has 32,767 characters


def cell_text(value: Any) -> str:  # noqa: ANN401 - what calamine makes of a cell
    """Return a cell's value as pandas would write it to CSV."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    if isinstance(value, datetime.datetime):
        is_date = value.time() == datetime.time()
        return str(value.date()) if is_date else str(value)
    return str(value)


def _write(path: str, sheet: str | None, out: IO[str]) -> str:
    import csv

    import python_calamine as calamine

    try:
        book = calamine.CalamineWorkbook.from_path(path)
    except calamine.PasswordError:
        raise BadWorkbook("it is protected by a password: save it without one") from None
    except (calamine.CalamineError, OSError) as error:
        raise BadWorkbook(f"it is damaged, or no workbook ({type(error).__name__}): save it again as .xlsx") from None
    sheets = [
        sheet.name
        for sheet in book.sheets_metadata
        if sheet.visible == calamine.SheetVisibleEnum.Visible and sheet.typ == calamine.SheetTypeEnum.WorkSheet
    ]
    if not sheets:
        raise BadWorkbook("it has no sheet to read: put the table on the first one")
    if sheet is not None and sheet not in sheets:
        names = ", ".join(repr(name[:70]) for name in sheets[:NAMED])
        raise BadWorkbook(f"it has no visible sheet {sheet[:70]!r}: it has {names}")
    chosen = sheets[0] if sheet is None else sheet
    writer = csv.writer(out, lineterminator="\n")
    titles, rows = _without_title(book.get_sheet_by_name(chosen).iter_rows())
    for row in rows:
        writer.writerow([cell_text(value) for value in row])
    others = f", the first of {len(sheets)}" if len(sheets) > 1 and sheet is None else ""
    lines = "1 line above the table was" if titles == 1 else f"{titles} lines above the table were"
    notice = f"The rows are those of the sheet {chosen[:70]!r}{others}.{f' {lines} left out.' if titles else ''}"
    return "\n".join([notice, *_not_computed(path, chosen)])


def _not_computed(path: str, sheet: str) -> list[str]:
    """Return the notice about cells whose formula was never computed: they were read as empty."""
    count, names = 0, list[str]()
    try:
        with zipfile.ZipFile(path) as package:
            part = _part_of(package, sheet)
            for name in () if part is None else _cells_not_computed(package, part):
                count += 1
                names += [name] if len(names) < NAMED_CELLS else []
    except (zipfile.BadZipFile, NotImplementedError, ElementTree.ParseError):
        return []  # calamine has read it, and forgives more: there is a notice less
    if not count:
        return []
    cells = "1 cell has" if count == 1 else f"{count:,} cells have"
    listed = ", ".join(names) + (", …" if count > len(names) else "")
    verb = "was" if count == 1 else "were"
    advice = "open the workbook in a spreadsheet program, save it, and send it again"
    return [f"{cells} {NOT_COMPUTED} ({listed}) and {verb} read as empty: {advice}."]


def _part_of(package: zipfile.ZipFile, sheet: str) -> str | None:
    """Return the name of the file of a sheet in the package, None where there is none of XML."""
    files = set(package.namelist())
    book, links = "xl/workbook.xml", "xl/_rels/workbook.xml.rels"
    if not {book, links} <= files:
        return None
    sheets, parts = (ElementTree.fromstring(package.read(name)) for name in (book, links))  # noqa: S314 - bounded
    ids = [
        value
        for one in sheets.iterfind(".//{*}sheet")
        if one.get("name") == sheet
        for name, value in one.items()
        if name.endswith("}id")
    ]
    for link in parts:
        if link.get("Id") in ids:
            part = posixpath.normpath(posixpath.join("/xl", link.get("Target", ""))).lstrip("/")
            return part if part in files else None
    return None


def _cells_not_computed(package: zipfile.ZipFile, part: str) -> Iterator[str]:
    """Yield the names of cells of a sheet that have a formula and no value."""
    rest = b""
    with package.open(part) as file:
        while piece := file.read(PIECE_BYTES):
            rest += piece
            end = max(rest.rfind(b"</c>") + 4, rest.rfind(b":c>") + 3)
            if end < 4 and len(rest) < _LONGEST_CELL:
                continue
            whole, rest = (rest[:end], rest[end:]) if end >= 4 else (b"", b"")
            for match in _CELL.finditer(whole):
                is_empty_text = match[2] is not None and b't="str"' in match[1]
                if not is_empty_text:
                    name = re.search(rb'\sr="([A-Z]{1,3}[0-9]{1,7})"', match[1])
                    yield "?" if name is None else name[1].decode()


def _without_title(rows: Iterator[list[Any]]) -> tuple[int, Iterator[list[Any]]]:
    """Return how many lines with one cell at most stand above the table, and the rows without them.

    A table of one column has such lines only: nothing is left out of it.
    """
    above: list[list[Any]] = []
    for row in rows:
        if sum(value != "" for value in row) > 1:
            titles = sum(any(value != "" for value in line) for line in above)
            return titles, itertools.chain([row], rows)
        above.append(row)
        if len(above) > TITLE_LINES:
            break
    return 0, itertools.chain(above, rows)


def main() -> int:
    """Write the workbook named by the command to stdout, and notices about it to stderr."""
    import io
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    out = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", newline="")
    try:
        message = _write(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None, out)
        out.flush()
    except BadWorkbook as error:
        sys.stderr.buffer.write(str(error).encode())
        return REFUSED
    sys.stderr.buffer.write(message.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""An Excel workbook as CSV text: its first visible sheet, or a named one, with the values of its cells.

Lines above the table that have one cell at most, such as a title, are left out, and the notice says so.

The file is a stranger's, and a small one can ask for all memory that there is (a cell in the last corner of a sheet).
So a process of its own reads it, with bounded memory and time; this file is also that process's program.
"""

import contextlib
import datetime
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import IO, Any

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
    """Yield a sheet as CSV in UTF-8, the first visible one if none is named; the last piece is a notice after a NUL.

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
    return f"The rows are those of the sheet {chosen[:70]!r}{others}.{f' {lines} left out.' if titles else ''}"


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

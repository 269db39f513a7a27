"""Blanks after the delimiters of a file (`Paris, 35`): they are not part of its cells, except within quotes.

That is what `skipinitialspace` means to pandas and to Python's csv module.
"""

import re
from functools import cache


def has_blanks(text: str, delimiter: str) -> bool:
    """Return whether each delimiter, except before empty cells, has a blank after it; the text begins with a record."""
    if f"{delimiter} " not in text:
        return False
    mark = re.escape(delimiter)
    plain = re.sub(rf'(^|[{mark}\r\n]) *"[^"]*(?:""[^"]*)*"', r"\1 q", text)
    later = [cell for line in re.split(r"[\r\n]+", plain) for cell in line.split(delimiter)[1:]]
    held = [cell for cell in later if cell.strip()]
    return bool(held) and all(cell.startswith(" ") for cell in held)


def without_blanks(data: bytes, delimiter: str) -> bytes:
    """Return records without the blanks at the start of their cells; quoted cells do not change."""
    if b'"' not in data:
        return _starts(delimiter).sub(b"", data)
    return _cells(delimiter).sub(rb"\1\2\3", data)


def cut_empty_rows(data: bytes, delimiter: str) -> tuple[bytes, bytes, int]:
    """Return records without the empty ones at their end, those, and how many they are.

    A line of an open quoted cell is never taken for a row: to close the quote, the last one has an odd number of them.
    """
    end, count = len(data), 0
    while end:
        stop = end
        while stop and data[stop - 1] in b"\r\n":
            stop -= 1
        start = max(data.rfind(b"\n", 0, stop), data.rfind(b"\r", 0, stop)) + 1
        line = data[start:stop]
        if _empty_row(delimiter).fullmatch(line) is None:
            break
        end = start
        count += bool(line)
    return data[:end], data[end:], count


@cache
def _empty_row(delimiter: str) -> re.Pattern[bytes]:
    cell = rb'(?:"")?+ *+' if delimiter == "\t" else rb'(?:"")?+[ \t]*+'
    return re.compile(rb"%b(?:%b%b)*+" % (cell, re.escape(delimiter.encode()), cell))


@cache
def _starts(delimiter: str) -> re.Pattern[bytes]:
    # A line of blanks stays what it is: a record, of one cell.
    return re.compile(rb"(?<=%b) +|(?:(?<=[\r\n])|\A) ++(?![\r\n]|\Z)" % re.escape(delimiter.encode()))


@cache
def _cells(delimiter: str) -> re.Pattern[bytes]:
    mark = re.escape(delimiter.encode())
    rest = rb"[^%b\r\n]*+" % mark
    blank = rb"(?:(?<=[\r\n])|\A)( ++(?:[\r\n]+|\Z))"
    return re.compile(rb'%b| *+("[^"]*+(?:""[^"]*+)*+"%b|(?!")%b)(%b|[\r\n]+|\Z)' % (blank, rest, rest, mark))

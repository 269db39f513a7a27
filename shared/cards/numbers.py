"""Number formats of a file: decimal mark, thousands separator, currency sign.

`52,000` is 52 or 52 thousand. What it is has to be proved by other numbers of the file or said by the caller; a file
that proves nothing is refused.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from shared.errors import RowFaults
from shared.faults import Fault, pointer_to_unknown

DECIMALS = {"point": ".", "comma": ","}
# What anything but text holds when it is not known: pandas' own list (read_csv, `na_values`).
NULLS = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"),
    *("NULL", "NaN", "None", "n/a", "nan", "null"),
)
THOUSANDS = {"none": "", "point": ".", "comma": ",", "space": " ", "apostrophe": "'"}
ENOUGH_NUMBERS = 500  # numbers with a mark in one column: more of them would not change the verdict

_CURRENCY = "$¢£¤¥֏؋৳฿៛₠-⃀﷼"
_SPACES = " \u00a0\u2009\u202f"  # the last three: what spreadsheets write, so that no number is broken at a line's end
_CLASSES = {" ": f"[{_SPACES}]", "'": "['\u2019]", "": ""}

_EXPONENT = r"(?:[eE][+-]?[0-9]+)?"
_PRICE = re.compile(
    rf"(?P<before>[+-]?)\s*(?:(?P<first>[{_CURRENCY}])\s*)?(?P<rest>.*?)(?:\s*(?P<last>[{_CURRENCY}]))?"
)
_LIKE_A_NUMBER = re.compile(rf"[+-]?[0-9.,'\u2019{_SPACES}]*[0-9][0-9.,]*{_EXPONENT}")
_SPACED = re.compile(rf"[+-]?[0-9]{{1,3}}(?:[{_SPACES}][0-9]{{3}})+(?:[.,][0-9]*)?")
_APOSTROPHES = re.compile(r"[+-]?[0-9]{1,3}(?:['\u2019][0-9]{3})+(?:[.,][0-9]*)?")
# By mark: several groups, or groups before the other mark: never decimals.
_GROUPS = {
    mark: re.compile(
        rf"[+-]?[0-9]{{1,3}}(?:[{mark}][0-9]{{3}}){{2,}}|[+-]?[0-9]{{1,3}}(?:[{mark}][0-9]{{3}})+[{other}][0-9]*"
    )
    for mark, other in ((",", "."), (".", ","))
}
# By mark: one mark, and three digits behind it: 52,000.
_EITHER = {mark: re.compile(rf"[+-]?[1-9][0-9]{{0,2}}[{mark}][0-9]{{3}}") for mark in ",."}
_DECIMAL = {mark: re.compile(rf"[+-]?(?:[0-9]+[{mark}][0-9]*|[{mark}][0-9]+){_EXPONENT}") for mark in ",."}


@dataclass(frozen=True, slots=True)
class NumberForm:
    """How a file writes its numbers."""

    decimal: str = "."  # . or ,
    thousands: str = ""  # . or , or a blank of any kind or an apostrophe; empty: thousands are not separated
    currency: str = ""  # the sign that may stand before or behind a number; empty: none

    def plain(self, text: str) -> str | None:
        """Return a number's text with a decimal point and nothing else between its digits; None if it is no number."""
        match = _pattern(self).fullmatch(text.strip())
        if match is None or (match["sign"] and match["inner"]):
            return None
        body = match["body"]
        if self.thousands:
            body = re.sub(_class(self.thousands), "", body)
        return f"{match['sign']}{match['inner']}{body.replace(self.decimal, '.')}"


POINT = NumberForm()


@dataclass(frozen=True, slots=True)
class NumberColumn:
    """The cells of a column in a file's first rows."""

    name: str
    cells: Sequence[str]
    is_certain: bool = True  # false: its cells are numbers only if all of them look like some


def find_number_form(
    columns: Iterable[NumberColumn], *, delimiter: str, decimal: str | None, thousands: str | None
) -> NumberForm:
    """Return the number format of a file from the cells of its first rows; given marks are not detected.

    Raises RowFaults where they can be read in two ways: `52,000` alone, or among numbers that contradict each other.
    """
    marks = _Marks()
    for column in columns:
        if column.is_certain or _are_numbers(column.cells):
            marks.add(column)
    spaces = thousands if thousands is not None else marks.blanks
    currency = marks.currency
    if decimal is None and thousands in (",", "."):
        decimal = _other(thousands)
    if decimal is None and thousands is not None:  # it is no group: a mark is the decimal one
        return NumberForm(_more_likely(marks.decimals + marks.either), thousands, currency)
    if decimal is None:
        decimal = _proved(marks, delimiter)
    if thousands is None:
        other = _other(decimal)
        separates = marks.groups[other] or (marks.either[other] and not marks.decimals[other])
        thousands = other if separates else spaces
    return NumberForm(decimal, thousands or "", currency)


def number_notices(form: NumberForm) -> list[str]:
    """Return notices about the reading of numbers, as sentences."""
    words = {",": "a comma", ".": "a point", " ": "a blank", "'": "an apostrophe"}
    notices = []
    if form.thousands:
        decimal = f", and the decimal mark is {words[form.decimal]}"
        notices.append(f"Numbers are read with {words[form.thousands]} between thousands{decimal}.")
    if form.currency:
        notices.append(f"The sign {form.currency} beside numbers was left out.")
    return notices


class _Marks:
    """Counts the evidence for each mark in the numbers of a file."""

    def __init__(self) -> None:
        self.decimals: Counter[str] = Counter()  # this mark is the decimal one
        self.groups: Counter[str] = Counter()  # this mark separates thousands
        self.either: Counter[str] = Counter()  # it could be each of them
        self.places: dict[str, tuple[str, int]] = {}  # mark -> column and row of the first that could be either
        self._blanks: Counter[str] = Counter()
        self._signs: Counter[str] = Counter()

    @property
    def blanks(self) -> str:
        """The blank or apostrophe that separates thousands, empty where none does."""
        return max(self._blanks, key=self._blanks.__getitem__, default="")

    @property
    def currency(self) -> str:
        """The currency sign of most numbers that have one."""
        return max(self._signs, key=self._signs.__getitem__, default="")

    def add(self, column: NumberColumn) -> None:
        """Count the numbers of a column."""
        marked = 0
        for row, cell in enumerate(column.cells):
            if not cell or cell.isdigit():
                continue
            sign, bare = _without_currency(cell.strip())
            if not self._count(bare, column.name, row):
                continue
            if sign:
                self._signs[sign] += 1
            marked += 1
            if marked > ENOUGH_NUMBERS:
                return

    def _count(self, bare: str, name: str, row: int) -> bool:
        """Count one number without its currency sign; return whether it is one."""
        if " " in bare or not bare.isascii() or "'" in bare:
            if _SPACED.fullmatch(bare):
                self._blanks[" "] += 1
                bare = re.sub(_class(" "), "", bare)
            elif _APOSTROPHES.fullmatch(bare):
                self._blanks["'"] += 1
                bare = re.sub(_class("'"), "", bare)
        for mark in ",.":
            if mark not in bare:
                continue
            if _GROUPS[mark].fullmatch(bare):
                self.groups[mark] += 1
                if _other(mark) in bare:
                    self.decimals[_other(mark)] += 1
                return True
            if _EITHER[mark].fullmatch(bare):
                self.either[mark] += 1
                self.places.setdefault(mark, (name, row))
                return True
            if _DECIMAL[mark].fullmatch(bare):
                self.decimals[mark] += 1
                return True
        return _LIKE_A_NUMBER.fullmatch(bare) is not None


def _proved(marks: _Marks, delimiter: str) -> str:
    """Return the decimal mark; raise RowFaults if the numbers are ambiguous."""
    comma = bool(marks.decimals[","] or marks.groups["."])
    point = bool(marks.decimals["."] or marks.groups[","])
    if comma != point:
        return "," if comma else "."
    if comma and not marks.either.total():  # some rows are wrong, and fail by themselves
        return _more_likely(marks.decimals)
    # Where no number has a comma, a point is what it is everywhere but in a spreadsheet that writes semicolons.
    if not marks.either[","] and not comma and delimiter != ";":
        return "."
    if not marks.either.total():
        return "."
    mark = "," if marks.either[","] else "."
    name, row = marks.places[mark]
    word = {",": "comma", ".": "point"}[mark]
    sentence = (
        f"The numbers can be read in two ways: in row {row + 1}, column {name[:70]!r} has a {word} before three "
        f"digits, which may be a decimal mark or separate thousands{', and other numbers disagree' * comma}. Say which "
        "with decimal (point or comma), or write numbers without separators."
    )
    raise RowFaults(sentence, faults=[Fault(f"/columns{pointer_to_unknown(name)}", "ambiguous_number", sentence)])


def _more_likely(counts: Counter[str]) -> str:
    return "," if counts[","] > counts["."] else "."


def _other(mark: str) -> str:
    return "," if mark == "." else "."


def _class(thousands: str) -> str:
    return _CLASSES.get(thousands) or re.escape(thousands)


def _without_currency(bare: str) -> tuple[str, str]:
    """Return the currency sign of a cell, if it has one, and the cell without it."""
    if bare.isascii() and "$" not in bare:
        return "", bare
    match = _PRICE.fullmatch(bare)
    if match is None or not (match["first"] or match["last"]):
        return "", bare
    return match["first"] or match["last"], match["before"] + match["rest"]


def _are_numbers(cells: Iterable[str]) -> bool:
    """Return whether all non-empty cells look like numbers of some format."""
    bare_cells = [bare for cell in cells if (bare := cell.strip()) not in NULLS]
    return bool(bare_cells) and all(_LIKE_A_NUMBER.fullmatch(_without_currency(bare)[1]) for bare in bare_cells)


@cache
def _pattern(form: NumberForm) -> re.Pattern[str]:
    mark = re.escape(form.decimal)
    plain = rf"[0-9]+(?:{mark}[0-9]*)?|{mark}[0-9]+"
    if form.thousands:
        plain = rf"[0-9]{{1,3}}(?:{_class(form.thousands)}[0-9]{{3}})+(?:{mark}[0-9]*)?|{plain}"
    sign = re.escape(form.currency)
    before, behind = (rf"(?:{sign}\s*)?", rf"(?:\s*{sign})?") if sign else ("", "")
    inner = "[+-]?" if sign else ""
    return re.compile(rf"(?P<sign>[+-]?){before}(?P<inner>{inner})(?P<body>(?:{plain}){_EXPONENT}){behind}")

"""Refusals of a training that need no column types and no library: the API checks them at once."""

import re
from collections.abc import Sequence
from typing import Any

from shared.cards.numbers import NULLS
from shared.errors import InvalidRequest
from shared.faults import counted, few
from shared.training.options import TrainingOptions, refusal

MIN_ROWS = 50

MAX_NAME = 200  # characters, as in a card

_NULLS = frozenset(NULLS)
_NAME = re.compile(r"[^\x00-\x1f]+")


def check_columns(names: Sequence[str], options: TrainingOptions) -> None:
    """Raise InvalidRequest where the target, or a column to leave out, is not among the columns of the file."""
    for name in (options.target, *options.leave_out):
        if name not in names:
            what = "the target" if name == options.target else "a column to leave out"
            listed = few((each[:70] for each in names), 10)
            raise refusal("no_column", f"The file has no column {name[:70]!r}, {what}: it has {listed}.")
    if options.target in options.leave_out:
        raise refusal("no_column", f"The column {options.target[:70]!r} is the target: it cannot be left out.")
    for place, name in enumerate(names, 1):
        if not name:
            raise refusal(
                "no_name",
                f"Column {place} of the header has no name: give it one, or leave it out of the file. (pandas writes "
                "its index so, unless by `to_csv(index=False)`.)",
            )
        if (len(name) > MAX_NAME or not _NAME.fullmatch(name)) and name not in options.leave_out:
            raise refusal(
                "no_name",
                f"The name of column {place}, {name[:70]!r}, is too long or holds line breaks or control characters: "
                f"{MAX_NAME} characters are the most.",
            )


def check_row_count(count: int, *, of_window: bool = False) -> None:
    """Raise InvalidRequest for fewer than 50 rows, of a file or of a model's own."""
    if count >= MIN_ROWS:
        return
    rows = counted(count, "row")
    if of_window:
        sentence = (
            f"The model has {rows} with an answer (reference rows, and scored rows of the window with an outcome), and "
            f"a training needs {MIN_ROWS} at least: load reference data, send outcomes, or choose a longer window."
        )
    else:
        sentence = f"The file has {rows}, and a training needs {MIN_ROWS} at least: send more."
    raise refusal("too_few_rows", sentence)


def check_answers(cells: Sequence[object], target: str) -> None:
    """Raise InvalidRequest where answers are missing, or all are the same; missing ones are None or null's words."""
    missing = sum(bare(cell) is None for cell in cells)
    if missing:
        raise refusal(
            "missing_target",
            f"The target {target[:70]!r} has no value in {missing:,} of {counted(len(cells), 'row')}: fill them in, or "
            "send only the rows whose answer is there.",
            column=target,
        )
    if len({bare(cell) for cell in cells}) == 1:
        raise refusal(
            "one_class",
            f"The target {target[:70]!r} has the same value in every row: send rows with each of the answers.",
            column=target,
        )


def bare(cell: object) -> Any:  # noqa: ANN401 - a cell
    """Return a cell without spaces around it; None where it is empty or a word for null."""
    if not isinstance(cell, str):
        return cell
    text = cell.strip()
    return None if text in _NULLS else text


def refusal_of(error: InvalidRequest) -> dict[str, str]:
    """Return the code and the words of a refusal, as the error of a job."""
    code = error.faults[0].code if error.faults else error.code
    return {"code": code, "message": error.detail}

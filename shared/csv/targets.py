"""Ground truth in files: a cell of the target column becomes the model's class, or a number."""

from collections.abc import Iterable
from typing import Any

from shared.cards.card import Card
from shared.cards.cell_values import FALSE, TRUE, read_cell
from shared.cards.classes import ClassValue, classes_of
from shared.cards.features import SHOWN_CATEGORIES
from shared.cards.numbers import NULLS, POINT, NumberForm
from shared.errors import CardError
from shared.faults import Fault, pointer


def check_targets(card: Card, column: str, values: Iterable[Any], numbers: NumberForm = POINT) -> None:
    """Raise CardError if most values of a target column are not answers of this model."""
    reader = TargetReader(card, column, numbers)
    texts = [str(value) for value in values if value is not None]
    strange = sum(isinstance(reader.read(text), Fault) for text in texts)
    if strange * 2 > len(texts):
        raise CardError(
            f"The target column {column[:70]!r} does not hold this model's answers: {strange} of {len(texts)} rows are "
            f"not {reader.expected}. Name the right one with --target."
        )


class TargetReader:
    """Reads the target column of one file; every distinct cell once."""

    def __init__(self, card: Card, column: str, numbers: NumberForm) -> None:
        self.column = column
        self._form = numbers
        self._cache: dict[str, ClassValue | Fault] = {}
        self._task = card.task
        self._words = _words(card) if card.task != "regression" else {}
        self._numbers = {value: value for value in set(self._words.values()) if not isinstance(value, str)}
        shown = [*card.labels, *(label for label in card.labels.values() if label not in card.labels)]
        more = f" or one of {len(shown) - SHOWN_CATEGORIES} more" if len(shown) > SHOWN_CATEGORIES else ""
        self.expected = (
            "a finite number"
            if card.task == "regression"
            else f"one of the model's classes or labels: {', '.join(shown[:SHOWN_CATEGORIES])}{more}"
        )

    def read(self, cell: str) -> ClassValue | Fault:
        """Return the class or the number of a cell, or its fault."""
        if cell not in self._cache:
            if len(self._cache) > 100_000:  # of a regression every cell may be new
                self._cache.clear()
            self._cache[cell] = self._read(cell)
        return self._cache[cell]

    def _read(self, cell: str) -> ClassValue | Fault:
        bare = cell.strip()
        if bare in self._words:
            return self._words[bare]
        if bare in NULLS:
            return self._fault("null", f"must not be null: give {self.expected}")
        number: Any = read_cell("number", bare, self._form)
        if isinstance(number, int | float) and abs(number) < float("inf"):
            if self._task == "regression":
                return float(number)
            if number in self._numbers:
                return self._numbers[number]
        elif bare.lower() in self._words:
            return self._words[bare.lower()]
        return self._fault("type" if self._task == "regression" else "category", f"must be {self.expected}")

    def _fault(self, code: str, message: str) -> Fault:
        return Fault(pointer(self.column), code, message)


def _words(card: Card) -> dict[str, ClassValue]:
    """Return every text for a class: the class, its label, and yes and no if the classes are 1 and 0.

    Of two meanings of one text the class counts before the label, and the label before yes and no.
    """
    classes = classes_of(card)
    by_value = {value: value for value in classes.values()}
    words: dict[str, ClassValue] = {}
    if set(by_value) == {0, 1}:
        words = dict.fromkeys(FALSE, by_value[0]) | dict.fromkeys(TRUE, by_value[1])
    labels = {label: classes[text] for text, label in card.labels.items()}
    lower = {label.lower(): value for label, value in labels.items()}
    unique = {word: value for word, value in lower.items() if sum(label.lower() == word for label in labels) == 1}
    return words | unique | labels | classes

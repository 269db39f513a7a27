"""The columns that a model expects of a file, as far as they are known before reading it."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from shared.cards.card import Card
from shared.cards.features import FeatureType
from shared.cards.numbers import NULLS, NumberColumn
from shared.cards.validator import takes_null

NUMBERS = ("integer", "number")
SHOWN_COLUMNS = 5


@dataclass(frozen=True, slots=True)
class ExpectedColumns:
    """The known columns of a model; without a card these may be the names alone, or nothing."""

    kinds: Mapping[str, FeatureType | None] = field(default_factory=dict)  # by feature; None: not known
    categories: Mapping[str, Collection[str]] = field(default_factory=dict)  # texts that a feature was trained with
    others: Collection[str] | None = ()  # columns that may hold numbers beside the features; None: all of them
    takes_empty_rows: bool = False  # a row without any value is one that the model scores

    @classmethod
    def of(cls, card: Card, others: Collection[str] = ()) -> Self:
        """Return the columns of a card."""
        return cls(
            {feature.name: feature.type for feature in card.row_features},
            {
                feature.name: [text for text in feature.categories if isinstance(text, str)]
                for feature in card.row_features
                if feature.type == "string" and feature.categories and feature.unknown == "accept"
            },
            others,
            all(takes_null(card, feature) for feature in card.row_features),
        )

    @property
    def keeps_blanks(self) -> bool:
        """Whether the model was trained on a file whose blanks behind the delimiter were part of names and texts."""
        texts = [text for texts in self.categories.values() for text in texts]
        return any(text.startswith(" ") for text in [*self.kinds, *texts])

    def number_columns(self, columns: Sequence[str], records: Sequence[Sequence[str]]) -> Iterator[NumberColumn]:
        """Yield the columns of some records that hold numbers, or may do so."""
        for place, name in enumerate(columns):
            kind = self.kinds.get(name)
            is_other = name not in self.kinds and (self.others is None or name in self.others)
            if kind in NUMBERS or is_other or (kind is None and name in self.kinds):
                cells = [record[place] if place < len(record) else "" for record in records]
                yield NumberColumn(name, cells, is_certain=kind in NUMBERS)

    def strange_values(self, columns: Sequence[str], records: Iterable[Sequence[str]]) -> list[str]:
        """Return a sentence for each column with mostly values that the model was not trained with."""
        notices = []
        held = list(records)
        for place, name in enumerate(columns):
            if not (categories := self.categories.get(name)):
                continue
            values = [record[place] for record in held if place < len(record) and record[place] not in NULLS]
            texts = frozenset(categories)
            unknown = sum(value not in texts for value in values)
            if unknown * 2 > len(values):
                notices.append(
                    f"{unknown:,} of the first {len(values):,} values of {name!r} are unknown to the model: check the "
                    "column, and the encoding of the file."
                )
        if len(notices) > SHOWN_COLUMNS:
            notices[SHOWN_COLUMNS:] = [f"So are most values of {len(notices) - SHOWN_COLUMNS} more columns."]
        return notices

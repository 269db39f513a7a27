"""Pairs of scores of the same rows by two versions, and their packed form."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.csv.packing import pack, unpack

_ID, _SCORE, _DECISION = np.dtype("<i8"), np.dtype("<f8"), np.dtype("<i2")


@dataclass(frozen=True, slots=True)
class Pairs:
    """n rows that two versions have scored: `before` by the one that decided them, `after` by the other one."""

    input_ids: NDArray[np.int64]
    before: NDArray[np.float64]  # a class's probability or a regression's number, NaN: none; of two classes of the 1st
    after: NDArray[np.float64]
    decided_before: NDArray[np.int16]  # index of the class; empty for a regression
    decided_after: NDArray[np.int16]

    @classmethod
    def empty(cls) -> "Pairs":
        """Return no pairs."""
        return cls(*(np.empty(0, kind) for kind in (_ID, _SCORE, _SCORE, _DECISION, _DECISION)))

    @classmethod
    def join(cls, parts: Sequence["Pairs"]) -> "Pairs":
        """Return all pairs of some parts."""
        columns = zip(
            *((p.input_ids, p.before, p.after, p.decided_before, p.decided_after) for p in parts), strict=True
        )
        return cls(*map(np.concatenate, columns)) if parts else cls.empty()

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.input_ids)

    def at(self, which: NDArray[np.bool_] | NDArray[np.intp]) -> "Pairs":
        """Return some of the pairs."""
        has_decisions = len(self.decided_before) > 0
        return Pairs(
            self.input_ids[which],
            self.before[which],
            self.after[which],
            self.decided_before[which] if has_decisions else self.decided_before,
            self.decided_after[which] if has_decisions else self.decided_after,
        )

    def dump(self) -> bytes:
        """Return the pairs packed: their number, then column by column, compressed by zstd."""
        columns: tuple[NDArray[Any], ...] = (self.input_ids, self.before, self.after)
        columns += (self.decided_before, self.decided_after)
        kinds: tuple[np.dtype[Any], ...] = (_ID, _SCORE, _SCORE, _DECISION, _DECISION)
        parts = [column.astype(kind).tobytes() for column, kind in zip(columns, kinds, strict=True)]
        return pack(b"".join([np.array([len(self)], _ID).tobytes(), *parts]))

    @classmethod
    def load(cls, packed: bytes) -> "Pairs":
        """Return the pairs that `dump` packed."""
        data = unpack(packed)
        count = int(np.frombuffer(data, _ID, 1)[0])
        columns: list[NDArray[Any]] = []
        place = _ID.itemsize
        decisions = count if len(data) > place + count * 24 else 0  # a regression decides nothing
        lengths: list[tuple[np.dtype[Any], int]] = [(_ID, count), (_SCORE, count), (_SCORE, count)]
        for kind, length in (*lengths, (_DECISION, decisions), (_DECISION, decisions)):
            columns.append(np.frombuffer(data, kind, length, place))
            place += length * kind.itemsize
        return cls(*columns)

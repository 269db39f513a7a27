"""Rows that were decided, scored again by another version: pairs and their tallies, by the version that decided."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from shared.cards.card import Card
from shared.comparison.fit import RowsOfOthers
from shared.comparison.pairs import Pairs
from shared.comparison.segments import Segments
from shared.comparison.tally import Tally, changes
from shared.encoding.columns import Columns
from shared.faults import Fault
from shared.scoring.batch import ScoredModel, no_number, score_rows, usable
from shared.scoring.outputs import Output

log = logging.getLogger(__name__)


class Decided(Protocol):
    """n decisions with their rows."""

    @property
    def input_ids(self) -> Sequence[int]:
        """Their inputs."""
        ...

    @property
    def version_ids(self) -> Sequence[int]:
        """The versions that decided."""
        ...

    @property
    def predictions(self) -> Sequence[float]:
        """As in model_outputs."""
        ...

    @property
    def probabilities(self) -> Sequence[float | None]:
        """As in model_outputs."""
        ...

    @property
    def features(self) -> bytes:
        """The rows: a JSON array."""
        ...

    @property
    def versions(self) -> Mapping[int, tuple[int, bool]]:
        """By id of a version: its number, and whether its rows are those of the other version."""
        ...


@dataclass(frozen=True, slots=True)
class ScoredAgain:
    """The results of decided rows; offsets are places among these rows."""

    offsets: NDArray[np.intp]  # of the rows that were scored, ascending
    pairs: Pairs  # of these
    by_version: dict[int, tuple[Pairs, Tally]]  # the same, by the version that decided
    faults: dict[int, list[Fault]]  # of the others


class Again:
    """Scores rows again that other versions decided."""

    def __init__(self, model: ScoredModel, reference: Sequence[Mapping[str, Any]]) -> None:
        self._model = model
        self._others = RowsOfOthers(model.card)
        self._kinds = {feature.name: feature.type for feature in model.card.row_features}
        self._segments = Segments.of(model.card, reference)

    def score(self, decided: Decided) -> ScoredAgain:
        """Score decided rows in one vectorised call; a row that does not fit this version's card gets its faults.

        MemoryError goes up.
        """
        rows: list[Any] = orjson.loads(decided.features)
        faults: dict[int, list[Fault]] = {}
        if not all(fits for _, fits in decided.versions.values()):
            for offset, version in enumerate(decided.version_ids):
                if not decided.versions[version][1]:
                    rows[offset], row_faults = self._others.read(rows[offset])
                    if row_faults:
                        faults[offset] = row_faults
        offsets = np.array([offset for offset in range(len(rows)) if offset not in faults], dtype=np.intp)
        good = rows if not faults else [rows[offset] for offset in offsets.tolist()]
        columns = Columns.of(good, self._kinds)
        after, decisions, refused = self._ask(columns, good)
        if refused:
            faults |= {int(offsets[place]): [fault] for place, fault in refused.items()}
            kept = np.array([place for place in range(len(good)) if place not in refused], dtype=np.intp)
            columns = Columns({name: each.at(kept) for name, each in columns.columns.items()}, len(kept))
            offsets, after, decisions = offsets[kept], after[kept], decisions[kept]
        pairs = self._pairs(decided, offsets, after, decisions)
        return ScoredAgain(offsets, pairs, self._tallies(decided, offsets, pairs, columns, faults), faults)

    def _ask(
        self, columns: Columns, rows: list[dict[str, Any]]
    ) -> tuple[NDArray[np.float64], NDArray[np.int16], dict[int, Fault]]:
        """Return score and class of each row, and the faults of those that the model refuses (their scores: NaN)."""
        card = self._model.card
        if not rows:
            return np.empty(0), np.empty(0, np.int16), {}
        try:
            scores = self._model.scorer.score_columns(columns)
            fine = usable(card, scores)
            if len(scores.prediction) == len(fine) == len(rows):
                faults = {} if fine.all() else dict.fromkeys(np.flatnonzero(~fine).tolist(), no_number(card))
                if card.task == "regression":
                    return scores.prediction, np.empty(len(rows), np.int16), faults
                missing = np.full(len(rows), np.nan)
                probability = missing if scores.probability is None else scores.probability
                return probability, scores.prediction.astype(np.int16), faults
        except (MemoryError, SystemExit, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, only the rows that cause it shall fail
            label = f"{card.name}@{card.version}"
            log.warning(
                "%s raised %s on a chunk; its rows are scored again to find out which", label, type(error).__name__
            )
        return self._ask_by_rows(card, score_rows(self._model, rows))

    @staticmethod
    def _ask_by_rows(
        card: Card, results: list[Output | Fault]
    ) -> tuple[NDArray[np.float64], NDArray[np.int16], dict[int, Fault]]:
        after, decisions = np.full(len(results), np.nan), np.zeros(len(results), np.int16)
        faults = {}
        for place, result in enumerate(results):
            if isinstance(result, Fault):
                faults[place] = result
                continue
            score = result.prediction if card.task == "regression" else result.probability
            after[place] = np.nan if score is None else score
            decisions[place] = 0 if card.task == "regression" else int(result.prediction)
        return after, decisions, faults

    def _pairs(
        self, decided: Decided, offsets: NDArray[np.intp], after: NDArray[np.float64], decisions: NDArray[np.int16]
    ) -> Pairs:
        is_number = self._model.card.task == "regression"
        predictions = np.array(decided.predictions, np.float64)[offsets]
        probabilities = np.array(decided.probabilities, np.float64)[offsets]  # None becomes NaN
        none = np.empty(0, np.int16)
        return Pairs(
            np.array(decided.input_ids, np.int64)[offsets],
            predictions if is_number else probabilities,
            after,
            none if is_number else predictions.astype(np.int16),
            none if is_number else decisions,
        )

    def _tallies(
        self,
        decided: Decided,
        offsets: NDArray[np.intp],
        pairs: Pairs,
        columns: Columns,
        faults: Mapping[int, list[Fault]],
    ) -> dict[int, tuple[Pairs, Tally]]:
        """Return pairs and tallies by the version that decided, also for a version whose rows are all refused."""
        task = self._model.card.task
        versions = np.array(decided.version_ids, np.int64)
        scored_by = versions[offsets]
        faulty = [offset for offset in faults if offset < len(versions)]
        refused_by = versions[faulty]
        tallies = {}
        for version in np.unique(versions).tolist():
            which = np.flatnonzero(scored_by == version)
            is_all = len(which) == len(pairs)
            own = pairs if is_all else pairs.at(which)
            own_columns = (
                columns if is_all else Columns({n: c.at(which) for n, c in columns.columns.items()}, len(which))
            )
            tally = Tally.of(task, own, refused=int(np.count_nonzero(refused_by == version)))
            if len(own):
                tally.segments = self._segments.count(own_columns, *changes(task, own))
            tallies[version] = (own, tally)
        return tallies

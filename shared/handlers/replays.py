"""Stored decisions, decided again by another version: the jobs `replay`, chunk by chunk."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, insert

from shared.faults import Fault
from shared.handlers.chunk_handler import ChunkHandler
from shared.jobs.chunks.transitions import PARTS, ChunkClaim, PackedChunk
from shared.tables import ChunkState, ScorePairs

if TYPE_CHECKING:
    from shared.comparison.scoring import Again
    from shared.jobs.chunks.decisions import DecidedRows
    from shared.registry.loading import LoadedModel

WORKER_LOST = Fault("", "worker_lost", "every worker that tried this row died or went silent; it may crash the model")
GONE = Fault("", "decision_gone", "its decision was erased since the replay began")
COLUMNS = (
    "row_no",
    "job_id",
    "row",
    "decided_by",
    "decision_before",
    "score_before",
    "decision_after",
    "score_after",
    "error",
)
_KEPT = 4  # versions whose segments are kept


@dataclass(slots=True)
class ReplayedChunk:
    """The results of a chunk."""

    failed_count: int = 0
    output: bytes = b""  # records of output.csv for every row of the chunk, in order
    errors: bytes = b""  # records of errors.csv
    parts: list[dict[str, Any]] = field(default_factory=list)  # values of score_pairs, one for each version before


class _Scorers:
    """Objects that are built once for a version: its validator and its segments."""

    def __init__(self) -> None:
        self._made: OrderedDict[str, Again] = OrderedDict()  # by SHA-256 and label, the last one used stands last
        self._lock = Lock()

    def of(self, model: "LoadedModel") -> "Again":
        from shared.comparison.scoring import Again

        key = f"{model.card.name}@{model.card.version} {model.card.sha256}"
        with self._lock:
            scorer = self._made.get(key)
            if scorer is None:
                scorer = self._made[key] = Again(model, model.reference)
                if len(self._made) > _KEPT:
                    self._made.popitem(last=False)
            self._made.move_to_end(key)
            return scorer


_scorers = _Scorers()


def replay_chunk(model: "LoadedModel", claim: ChunkClaim) -> tuple[ReplayedChunk, ChunkState]:
    """Decide the rows of a chunk again; a row that the version refuses gets a fault, and is in no pair."""
    import numpy as np

    from shared.comparison.pairs import Pairs
    from shared.csv.chunk_reader import row_error
    from shared.csv.output import error_records

    decided = claim.decided
    assert decided is not None
    count = len(decided.output_ids)
    faults: dict[int, list[Fault]] = {offset: [GONE] for offset in range(count, claim.row_count)}
    chunk = ReplayedChunk()
    pairs = Pairs.empty()
    offsets = np.empty(0, np.intp)
    if claim.is_out_of_attempts:
        faults = {offset: [WORKER_LOST] for offset in range(claim.row_count)}
    else:
        scored = _scorers.of(model).score(decided)
        offsets, pairs = scored.offsets, scored.pairs
        faults |= scored.faults
        for version_id, (own, tally) in scored.by_version.items():
            chunk.parts.append(
                {
                    "job_id": claim.job_id,
                    "model_version_id": claim.model_version_id,
                    "decided_by_id": version_id,
                    "starts_at": decided.first_at,
                    "first_row": claim.first_row,
                    "row_count": len(own),
                    "tally": tally.dump(),
                    "pairs": own.dump(),
                }
            )
    chunk.failed_count = len(faults)
    labels = list(model.card.labels.values())
    chunk.output = _records(claim, decided, labels, offsets.tolist(), pairs, faults)
    errors = [
        row_error(claim.first_row + offset, fault, {}) for offset, of_row in sorted(faults.items()) for fault in of_row
    ]
    chunk.errors = error_records(errors, claim.format)
    return chunk, ChunkState.FAILED if claim.is_out_of_attempts else ChunkState.DONE


def _records(
    claim: ChunkClaim,
    decided: "DecidedRows",
    labels: Sequence[str],
    offsets: list[int],
    pairs: Any,  # noqa: ANN401 - Pairs, which need numpy
    faults: dict[int, list[Fault]],
) -> bytes:
    """Return the records of output.csv: where each row is, and both decisions."""
    from shared.csv.output import error_text, escape, number_cells, records_of, spread

    form, total = claim.format, claim.row_count
    gone = total - len(decided.output_ids)

    def scores(values: Any) -> list[str]:  # noqa: ANN401 - an array
        cells = number_cells(values.tolist(), form)
        return spread(["" if cell == "null" else cell for cell in cells], offsets, total)

    def decisions(places: Any) -> list[str]:  # noqa: ANN401 - an array
        names = [escape(label, form.delimiter) for label in labels]
        return spread([names[place] for place in places.tolist()], offsets, total) if len(places) else [""] * total

    error = [""] * total
    for offset, of_row in faults.items():
        error[offset] = escape(error_text(of_row), form.delimiter)
    columns = [
        list(map(str, range(claim.first_row + 1, claim.first_row + total + 1))),
        [*decided.job_ids, *[""] * gone],
        [*map(str, decided.rows), *[""] * gone],
        [*(str(decided.versions[each][0]) for each in decided.version_ids), *[""] * gone],
        decisions(pairs.decided_before),
        scores(pairs.before),
        decisions(pairs.decided_after),
        scores(pairs.after),
        error,
    ]
    return records_of(columns, form)


def _write(connection: Connection, claim: ChunkClaim, chunk: ReplayedChunk) -> None:
    if chunk.parts:
        connection.execute(insert(ScorePairs), chunk.parts)


def split(claim: ChunkClaim) -> list[PackedChunk]:
    """Return a suspect chunk as smaller ones; decisions that were erased meanwhile stay with the last one."""
    from shared.csv.packing import pack
    from shared.jobs.chunks.decisions import Decisions

    assert claim.decided is not None
    ids = claim.decided.output_ids
    if not ids:
        return [PackedChunk(claim.first_row, claim.row_count, claim.payload)]
    size = max(1, -(-claim.row_count // PARTS))
    parts = []
    for start in range(0, len(ids), size):
        run_ids = ids[start : start + size]
        is_last = start + size >= len(ids)
        count = claim.row_count - start if is_last else len(run_ids)
        run = Decisions(run_ids[0], run_ids[-1], count)
        parts.append(PackedChunk(claim.first_row + start, count, pack(run.dump())))
    return parts


REPLAYS = ChunkHandler(replay_chunk, _write, split)

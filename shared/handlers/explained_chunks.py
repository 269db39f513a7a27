"""Explanations for every row of another job: the jobs `explain_batch`, chunk by chunk."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from shared.explanations.explanation import Explanation
from shared.explanations.storage import store_explanations
from shared.faults import Fault
from shared.handlers.chunk_handler import ChunkHandler
from shared.jobs.chunks.transitions import PARTS, ChunkClaim, PackedChunk
from shared.tables import ChunkState

if TYPE_CHECKING:
    from shared.cards.card import Card
    from shared.registry.loading import LoadedModel

WORKER_LOST = Fault("", "worker_lost", "every worker that tried to explain this row died or went silent")
NOT_SCORED = Fault("", "not_scored", "has no score: its job ended before it was scored, or scores it again")


@dataclass(slots=True)
class ExplainedChunk:
    """The results of a chunk."""

    failed_count: int = 0
    explanations: list[tuple[int, Explanation]] = field(default_factory=list)  # by the id of the input
    output: bytes = b""  # records of output.csv for every row of the chunk, in order
    errors: bytes = b""  # records of errors.csv


def explain_chunk(model: "LoadedModel", claim: ChunkClaim) -> tuple[ExplainedChunk, ChunkState]:
    """Explain the rows of a chunk; a row without a score, or with a refused explanation, gets a fault."""
    from shared.csv.chunk_reader import row_error
    from shared.csv.output import error_records
    from shared.explanations.explain import explain_rows
    from shared.explanations.lines import explanation_records

    faults = {offset: [NOT_SCORED] for offset in range(claim.row_count)}
    explained: dict[int, Explanation] = {}
    chunk = ExplainedChunk()
    good = [row for row in claim.source if row.faults is None]
    for row in claim.source:
        faults[row.index - claim.first_row] = [Fault(**fault) for fault in row.faults or ()]
    explanations = (
        [WORKER_LOST] * len(good) if claim.is_out_of_attempts else explain_rows(model, [row.features for row in good])
    )
    for row, result in zip(good, explanations, strict=True):
        offset = row.index - claim.first_row
        if isinstance(result, Fault):
            faults[offset] = [result]
        else:
            explained[offset] = result
            chunk.explanations.append((row.input_id, result))
            del faults[offset]
    chunk.failed_count = len(faults)
    chunk.output = explanation_records(
        model.card,
        claim.format,
        _kept_cells(model.card, claim),
        explained,
        faults,
        first_row=claim.first_row,
        row_count=claim.row_count,
    )
    errors = [
        row_error(claim.first_row + offset, fault, {})
        for offset, row_faults in sorted(faults.items())
        for fault in row_faults
    ]
    chunk.errors = error_records(errors, claim.format)
    return chunk, ChunkState.FAILED if claim.is_out_of_attempts else ChunkState.DONE


def _kept_cells(card: "Card", claim: ChunkClaim) -> list[list[str]]:
    """Return the cells of the columns that the output repeats, by column; empty where the file has the row no more."""
    from shared.csv.output import clean, passthrough_columns, spread_cells
    from shared.csv.packing import unpack
    from shared.csv.records import parse_records

    names = passthrough_columns(card, claim.format)
    if not names or not claim.payload:
        return [[""] * claim.row_count for _ in names]
    records = parse_records(unpack(claim.payload), claim.format)
    columns = []
    for name in names:
        cells = clean(spread_cells(records, name, claim.format.columns.index(name)))
        own_cells = cells[claim.skipped : claim.skipped + claim.row_count]
        columns.append(own_cells + [""] * (claim.row_count - len(own_cells)))
    return columns


def _write(connection: Connection, claim: ChunkClaim, chunk: ExplainedChunk) -> None:
    if chunk.explanations:
        store_explanations(connection, claim.model_version_id, chunk.explanations)


def split(claim: ChunkClaim) -> list[PackedChunk]:
    """Return a suspect chunk as smaller ones."""
    size = max(1, -(-claim.row_count // PARTS))
    end = claim.first_row + claim.row_count
    return [PackedChunk(first, min(size, end - first), b"") for first in range(claim.first_row, end, size)]


EXPLAINED_CHUNKS = ChunkHandler(explain_chunk, _write, split)

"""Work on a claimed chunk: score it, split it, or record a failed row. Both runtimes."""

from collections import OrderedDict
from threading import Lock

from shared.cards.card import Card
from shared.cards.validator import RowValidator
from shared.csv.chunk_reader import ChunkReader
from shared.csv.chunk_scoring import ScoredChunk, fail_chunk, score_chunk
from shared.csv.format import CsvFormat
from shared.csv.packing import pack, unpack
from shared.csv.uploads.reader import split_chunk
from shared.jobs.chunks.transitions import PARTS, ChunkClaim, PackedChunk
from shared.scoring.batch import ScoredModel
from shared.tables import ChunkState

_READERS = 32  # kept: one for each file that is being scored


class ChunkWork:
    """Works on chunks; caches the compiled reader of each model version and format."""

    def __init__(self) -> None:
        self._readers: OrderedDict[tuple[int, CsvFormat], ChunkReader] = OrderedDict()  # the last one used stands last
        self._lock = Lock()  # a model that never returns leaves its thread behind, and another one scores beside it

    def score(self, model: ScoredModel, claim: ChunkClaim) -> tuple[ScoredChunk, ChunkState]:
        """Score a chunk; return its rows and lines, and its state.

        A single row that took down every worker that tried it is not tried again: it gets that fault.
        """
        reader = self._reader(model.card, claim)
        data = unpack(claim.payload)
        if claim.is_out_of_attempts:
            message = "every worker that tried this row died or went silent; it may crash the model"
            failed = fail_chunk(
                reader,
                model.card,
                data,
                first_row=claim.first_row,
                row_count=claim.row_count,
                code="worker_lost",
                message=message,
            )
            return failed, ChunkState.FAILED
        scored = score_chunk(model, reader, data, first_row=claim.first_row, row_count=claim.row_count)
        return scored, ChunkState.DONE

    def _reader(self, card: Card, claim: ChunkClaim) -> ChunkReader:
        key = (claim.model_version_id, claim.format)  # versions are immutable: one id is one card
        with self._lock:
            reader = self._readers.get(key)
            if reader is None:
                reader = self._readers[key] = ChunkReader(card, RowValidator(card), claim.format)
                if len(self._readers) > _READERS:
                    self._readers.popitem(last=False)
            self._readers.move_to_end(key)
        return reader


def split_suspect(claim: ChunkClaim) -> list[PackedChunk]:
    """Return a suspect chunk as smaller ones, packed."""
    parts = split_chunk(unpack(claim.payload), claim.format.delimiter, rows=max(1, -(-claim.row_count // PARTS)))
    return [PackedChunk(claim.first_row + part.first_row, part.row_count, pack(part.data)) for part in parts]

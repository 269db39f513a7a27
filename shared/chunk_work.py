"""What is done with a claimed chunk: score it, cut it, or give its row up. Both runtimes."""

from functools import lru_cache

from shared.cards import Card
from shared.chunks import PARTS, ChunkClaim, PackedChunk, pack, unpack
from shared.csv_file import cut
from shared.csv_format import CsvFormat
from shared.csv_rows import ChunkReader
from shared.csv_scoring import ScoredChunk, fail_chunk, score_chunk
from shared.rows import RowValidator
from shared.scoring import ScoredModel
from shared.tables import ChunkState

_READERS = 32  # kept: one for each file that is being scored


class ChunkWork:
    """Works on chunks; keeps what is compiled once for a card and a format."""

    def __init__(self) -> None:
        self._reader = lru_cache(maxsize=_READERS)(_make_reader)

    def score(self, model: ScoredModel, taken: ChunkClaim) -> tuple[ScoredChunk, ChunkState]:
        """Score a chunk; return what is to be stored, and the state that it comes to.

        A single row that took down every worker that tried it is not tried again: it gets that fault.
        """
        reader = self._reader(_Key(model.card), taken.format)
        data = unpack(taken.payload)
        if taken.is_hopeless:
            message = "every worker that tried this row died or went silent; it may crash the model"
            failed = fail_chunk(
                reader,
                model.card,
                data,
                first_row=taken.first_row,
                row_count=taken.row_count,
                code="worker_lost",
                message=message,
            )
            return failed, ChunkState.FAILED
        scored = score_chunk(model, reader, data, first_row=taken.first_row, row_count=taken.row_count)
        return scored, ChunkState.DONE


def cut_chunk(taken: ChunkClaim) -> list[PackedChunk]:
    """Return a suspect chunk as smaller ones, packed."""
    parts = cut(unpack(taken.payload), taken.format.delimiter, rows=max(1, -(-taken.row_count // PARTS)))
    return [PackedChunk(taken.first_row + part.first_row, part.row_count, pack(part.data)) for part in parts]


class _Key:
    """A card as a key: the same version is the same card."""

    __slots__ = ("card",)

    def __init__(self, card: Card) -> None:
        self.card = card

    def __hash__(self) -> int:
        return hash((self.card.name, self.card.version))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.card.sha256 == other.card.sha256 and self.card == other.card


def _make_reader(key: _Key, form: CsvFormat) -> ChunkReader:
    return ChunkReader(key.card, RowValidator(key.card), form)

"""The chunks of files: the jobs `csv`. The libraries that read files are imported when the first one comes."""

from functools import cache
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from shared.handlers.chunk_handler import ChunkHandler

if TYPE_CHECKING:
    from shared.csv.chunk_scoring import ScoredChunk
    from shared.jobs.chunks.transitions import ChunkClaim, PackedChunk
    from shared.jobs.chunks.work import ChunkWork
    from shared.registry.loading import LoadedModel
    from shared.tables import ChunkState


@cache
def _work() -> "ChunkWork":
    from shared.jobs.chunks.work import ChunkWork

    return ChunkWork()


def score(model: "LoadedModel", claim: "ChunkClaim") -> "tuple[ScoredChunk, ChunkState]":
    """Read, validate and score the records of a chunk."""
    return _work().score(model, claim)


def _write(connection: Connection, claim: "ChunkClaim", scored: "ScoredChunk") -> None:
    from shared.jobs.chunks.storage import write_scores

    write_scores(connection, claim, scored)


def _split(claim: "ChunkClaim") -> "list[PackedChunk]":
    from shared.jobs.chunks.work import split_suspect

    return split_suspect(claim)


FILES = ChunkHandler(score, _write, _split)

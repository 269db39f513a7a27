"""The interface of a handler of chunks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from shared.jobs.chunks.transitions import ChunkClaim, PackedChunk
    from shared.registry.loading import LoadedModel
    from shared.tables import ChunkState


@dataclass(frozen=True, slots=True)
class ChunkHandler:
    """Turns a chunk of a job into its stored rows and lines.

    `compute` returns what a claimed chunk comes to, and the state that it then has; a single row that took down every
    worker that tried it gets that as its fault. It reads no database, and may run in any process that holds the model.
    MemoryError goes up.

    `write` stores the rows of a chunk in the transaction that ends it; its lines are stored with the end itself.

    `split` returns a chunk that took workers down as smaller ones.
    """

    compute: "Callable[[LoadedModel, ChunkClaim], tuple[Any, ChunkState]]"  # what it comes to are Lines
    write: "Callable[[Connection, ChunkClaim, Any], None]"
    split: "Callable[[ChunkClaim], list[PackedChunk]]"

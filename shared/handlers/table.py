"""The handler for each kind of job: for whole jobs, chunk by chunk (worker/chunk_pipeline.py), or of no version."""

from collections.abc import Callable
from typing import Any

from shared.handlers.chunk_handler import ChunkHandler
from shared.handlers.explained_chunks import EXPLAINED_CHUNKS
from shared.handlers.explanations import EXPLANATIONS
from shared.handlers.files import FILES
from shared.handlers.handler import Handler
from shared.handlers.registrations import register
from shared.handlers.replays import REPLAYS
from shared.handlers.reproductions import reproduce
from shared.handlers.scores import SCORES
from shared.handlers.trainings import train
from shared.jobs.kinds import Claiming, kind_of
from shared.tables import JobKind

HANDLERS: dict[str, Handler[Any]] = {
    JobKind.PREDICT: SCORES,
    JobKind.BATCH: SCORES,
    JobKind.EXPLAIN: EXPLANATIONS,
}
CHUNK_HANDLERS: dict[str, ChunkHandler] = {
    JobKind.CSV: FILES,
    JobKind.EXPLAIN_BATCH: EXPLAINED_CHUNKS,
    JobKind.REPLAY: REPLAYS,
}
# Jobs of no version, each claimed alone: called with the engine, the settings and the claim.
APART_HANDLERS: dict[str, Callable[..., bool]] = {
    JobKind.REGISTER: register,
    JobKind.TRAIN: train,
    JobKind.REPRODUCE: reproduce,
}


def _groups() -> tuple[tuple[Handler[Any], Claiming, tuple[str, ...]], ...]:
    ways: dict[tuple[str, Claiming], list[str]] = {}
    for kind, handler in HANDLERS.items():
        ways.setdefault((handler.name, kind_of(kind).claiming), []).append(kind)
    return tuple((HANDLERS[kinds[0]], claiming, tuple(kinds)) for (_, claiming), kinds in ways.items())


GROUPS = _groups()  # the kinds that may be held in one claim, with their handler and how they are claimed

"""Storage of a finished chunk: its rows, its output lines and the job's progress, all or nothing."""

import io
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import Connection, Engine, select, update

from shared.cards.seal import text_sha256
from shared.csv.packing import pack
from shared.database.clock import clock
from shared.database.engine import dumps
from shared.jobs.chunks import transitions as chunks
from shared.jobs.chunks.transitions import ChunkClaim
from shared.monitoring.suspensions import is_suspended
from shared.tables import ChunkState, JobChunk, JobState

if TYPE_CHECKING:
    from shared.csv.chunk_scoring import ScoredChunk

_INPUTS = "COPY model_inputs (id, job_id, row_index, sha256, features, faults) FROM STDIN"
_OUTPUTS = (
    "COPY model_outputs (input_id, model_version_id, task, prediction, label, probability, probabilities, threshold) "
    "FROM STDIN"
)
_IDS = "SELECT array_agg(nextval('model_inputs_id_seq')) FROM generate_series(1, %s)"
_NULL = "\\N"  # in COPY's text format
_BYTES = "\\\\x"  # there, before the hexadecimal digits of a bytea
_READ_BYTES = 1 << 20  # that psycopg2 asks for at once


class Lines(Protocol):
    """The lines of the output and error files of a chunk."""

    output: bytes  # records of output.csv for every row of the chunk, in order
    errors: bytes  # records of errors.csv
    failed_count: int


# Stores the rows of a chunk, which are of its kind, in the transaction that is open.
Write = Callable[[Connection, ChunkClaim, Any], None]


class Stale(Exception):
    """The chunk is no longer ours: its lease ran out, and what we made of it is undone."""


class Suspended(Exception):
    """The version was suspended while it scored the chunk: that has to be done again, by its pipeline."""


def write_scores(connection: Connection, claim: ChunkClaim, scored: "ScoredChunk") -> None:
    """Write the inputs of a chunk and their outputs."""
    if connection.dialect.name == "sqlite":
        _insert_rows(connection, claim, scored)
    else:
        _copy_rows(connection, claim, scored)


def store(
    engine: Engine,
    claim: ChunkClaim,
    done: Lines,
    *,
    write: Write = write_scores,
    state: ChunkState = ChunkState.DONE,
) -> JobState | None:
    """Store a chunk in one fenced transaction; return the final state of its job if the chunk ended it.

    Raises Stale when the token is no longer the chunk's, Suspended when only the pipeline may score it; nothing was
    stored then.
    """
    output, errors = pack(done.output), pack(done.errors)
    with engine.begin() as connection:
        _check_held(connection, claim)
        write(connection, claim, done)
        # Last, so that heartbeats need not wait for the rows: a stale token undoes them.
        held = connection.execute(
            update(JobChunk)
            .where(chunks.held_by(claim))
            .values(
                {
                    **chunks.NO_CLAIM,
                    "state": state.value,
                    "finished_at": clock(connection),
                    "failed_count": done.failed_count,
                    "output": output,
                    "output_bytes": len(done.output),
                    "errors": errors,
                    "errors_bytes": len(done.errors),
                }
            )
        )
        if held.rowcount == 0:
            raise Stale
        return chunks.count_stored(connection, claim, failed_count=done.failed_count)


def _check_held(connection: Connection, claim: ChunkClaim) -> None:
    """Raise Stale when a claim is no longer ours, Suspended when its version is; it may be so a moment later."""
    if connection.scalar(select(JobChunk.id).where(chunks.held_by(claim))) is None:
        raise Stale
    if not claim.by_pipeline and connection.scalar(select(is_suspended(claim.model_version_id))):
        raise Suspended


def _copy_rows(connection: Connection, claim: ChunkClaim, scored: "ScoredChunk") -> None:
    """Write inputs and outputs by COPY in its text format (PostgreSQL manual, COPY)."""
    count = scored.row_count
    ids: list[int] = connection.exec_driver_sql(_IDS, (count,)).scalar_one()
    seals = _seals(scored)
    features = scored.features
    if any("\\" in text for text in features):
        features = [text.replace("\\", "\\\\") for text in features]
    faults = {offset: _escaped(dumps(row_faults)) for offset, row_faults in scored.faults.items()}
    job, first = claim.job_id, claim.first_row
    if faults:
        lines = [
            f"{number}\t{job}\t{first + offset}\t{_NULL if offset in faults else _BYTES + seal.hex()}\t{text}\t"
            f"{faults.get(offset, _NULL)}\n"
            for offset, (number, seal, text) in enumerate(zip(ids, seals, features, strict=True))
        ]
    else:
        lines = [
            f"{number}\t{job}\t{row}\t{_BYTES}{seal.hex()}\t{text}\t{_NULL}\n"
            for row, (number, seal, text) in enumerate(zip(ids, seals, features, strict=True), first)
        ]
    _copy(connection, _INPUTS, lines)
    if not scored.offsets:
        return
    label_text = {label: _NULL if label is None else _escaped(label) for label in set(scored.label)}
    start = f"{claim.model_version_id}\t{scored.task}"
    end = _NULL if scored.threshold is None else repr(scored.threshold)
    _copy(
        connection,
        _OUTPUTS,
        [
            f"{ids[offset]}\t{start}\t{prediction!r}\t{label_text[label]}\t"
            f"{_NULL if probability is None else repr(probability)}\t{probabilities or _NULL}\t{end}\n"
            for offset, prediction, label, probability, probabilities in zip(
                scored.offsets,
                scored.prediction,
                scored.label,
                scored.probability,
                scored.probabilities,
                strict=True,
            )
        ],
    )


def _seals(scored: "ScoredChunk") -> list[bytes]:
    """Return the SHA-256 of each row; no meaning for a row with faults."""
    return [text_sha256(text) for text in scored.features]


def _copy(connection: Connection, statement: str, lines: Iterable[str]) -> None:
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor:
        cursor.copy_expert(statement, io.BytesIO("".join(lines).encode()), _READ_BYTES)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _insert_rows(connection: Connection, claim: ChunkClaim, scored: "ScoredChunk") -> None:
    """Write inputs and outputs with executemany: the only writer at this moment can foresee their numbers."""
    last: int = connection.exec_driver_sql("SELECT coalesce(max(id), 0) FROM model_inputs").scalar_one()
    faults = {offset: dumps(row_faults) for offset, row_faults in scored.faults.items()}
    connection.exec_driver_sql(
        "INSERT INTO model_inputs (id, job_id, row_index, sha256, features, faults) VALUES (?, ?, ?, ?, ?, ?)",
        [
            (
                last + 1 + offset,
                claim.job_id,
                claim.first_row + offset,
                None if offset in faults else seal,
                text,
                faults.get(offset),
            )
            for offset, (seal, text) in enumerate(zip(_seals(scored), scored.features, strict=True))
        ],
    )
    if scored.offsets:
        connection.exec_driver_sql(
            "INSERT INTO model_outputs (input_id, model_version_id, task, prediction, label, probability, "
            "probabilities, threshold) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (last + 1 + offset, claim.model_version_id, scored.task, *score, scored.threshold)
                for offset, *score in zip(
                    scored.offsets,
                    scored.prediction,
                    scored.label,
                    scored.probability,
                    scored.probabilities,
                    strict=True,
                )
            ],
        )

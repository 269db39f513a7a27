"""Scoring files in a worker: what its log lines say, also from the threads that store."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from shared.handlers.table import CHUNK_HANDLERS
from shared.jobs.chunks import storage as chunk_storage
from tests.support.log_lines import written
from worker.chunk_pipeline import ChunkPipeline


def test_line_of_the_thread_that_stores_names_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken_back(*_: object, **__: object) -> NoReturn:
        raise chunk_storage.Stale

    monkeypatch.setattr(chunk_storage, "store", taken_back)
    handler = SimpleNamespace(compute=lambda *_: (None, None), write=None)
    monkeypatch.setitem(CHUNK_HANDLERS, "csv", handler)  # type: ignore[arg-type]
    chunk = SimpleNamespace(
        job_id="j1",
        kind="csv",
        request_id="r1",
        first_row=0,
        row_count=9,
        should_split=False,
        by_pipeline=False,
        timeout_seconds=30,
    )
    runtime: Any = SimpleNamespace(
        heartbeat=SimpleNamespace(hold_chunk=lambda *_, **__: nullcontext(), unlimit=lambda _: None),
        retry_while_away=lambda store: store(),
        redis=SimpleNamespace(exists=lambda _: 0),
        bulk_engine=None,
    )
    model: Any = SimpleNamespace(card=SimpleNamespace(name="credit", version=2))
    pipeline = ChunkPipeline(runtime, model, 7, ended=lambda _: None)
    monkeypatch.setattr(pipeline, "_claim", lambda: chunk)
    with written("worker.chunk_pipeline") as entries, pipeline:
        assert pipeline.process_next()
    [entry] = entries
    assert entry["message"] == "rows 1 to 9 of job j1 were no longer ours; nothing was stored"
    assert entry["job_id"] == "j1"

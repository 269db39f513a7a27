"""One task for each row."""

import os
import uuid
from typing import Any

from celery import Celery
from celery.signals import worker_process_init
from sqlalchemy import func

from benchmarks.naive.model import pipeline, probability_of
from benchmarks.naive.tables import Job, Output, Session, engine

app = Celery("naive", broker=os.environ["NAIVE_REDIS_URL"])
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)


@worker_process_init.connect
def _start_child(**_: Any) -> None:
    engine.dispose(close=False)
    pipeline()


@app.task
def score(job_id: str) -> None:
    """Load the row, score it, store its output."""
    with Session() as session:
        job = session.get_one(Job, uuid.UUID(job_id))
        probability = probability_of(job.features)
        session.add(Output(job_id=job.id, prediction=int(probability >= 0.5), probability=probability))
        job.state = "succeeded"
        job.finished_at = func.now()
        session.commit()

"""Its HTTP side: `def` routes in FastAPI's thread pool."""

from typing import Any

from fastapi import FastAPI

from benchmarks.naive.model import pipeline, probability_of
from benchmarks.naive.schemas import Submission
from benchmarks.naive.tables import Base, Job, Session, engine
from benchmarks.naive.tasks import score

Base.metadata.create_all(engine)
pipeline()
app = FastAPI()


@app.get("/readyz")
def ready() -> dict[str, str]:
    """Answer as soon as the service runs."""
    return {"status": "ready"}


@app.post("/jobs", status_code=202)
def submit(body: Submission) -> dict[str, str]:
    """Insert the row, commit, send one task."""
    with Session() as session:
        job = Job(features=body.features.model_dump())
        session.add(job)
        session.commit()
        job_id = str(job.id)
    score.delay(job_id)
    return {"id": job_id, "status": "queued"}


@app.post("/predict")
def predict(body: Submission) -> dict[str, Any]:
    """Score the row at once and store nothing."""
    probability = probability_of(body.features.model_dump())
    return {"prediction": int(probability >= 0.5), "probability": probability}

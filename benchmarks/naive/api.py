"""Its HTTP side: `def` routes in FastAPI's thread pool."""

from typing import Any

import pandas as pd
from fastapi import FastAPI, UploadFile

from benchmarks.naive.model import pipeline, probability_of
from benchmarks.naive.schemas import Features, Submission
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


@app.post("/predict_csv", status_code=202)
def submit_csv(file: UploadFile) -> dict[str, int]:
    """Insert every row of a file, commit, send one task for each."""
    rows = pd.read_csv(file.file).to_dict("records")
    with Session() as session:
        jobs = [Job(features=Features(**row).model_dump()) for row in rows]
        session.add_all(jobs)
        session.commit()
        ids = [str(job.id) for job in jobs]
    for job_id in ids:
        score.delay(job_id)
    return {"rows": len(ids)}


@app.post("/predict")
def predict(body: Submission) -> dict[str, Any]:
    """Score the row at once and store nothing."""
    probability = probability_of(body.features.model_dump())
    return {"prediction": int(probability >= 0.5), "probability": probability}

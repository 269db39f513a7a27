"""The tasks: thin. What they do is imported when they run: the pool's parent never runs one, and stays small."""

from shared.queue import TaskName
from worker.main import app


@app.task(name=TaskName.SCORE)
def score(lane: str, model_version_id: int) -> str:
    """Claim, score and store what is queued for a model version in a lane."""
    from worker.drain import drain
    from worker.runtime import get_runtime

    return drain(get_runtime(), lane, model_version_id)


@app.task(name=TaskName.RECOVER)
def recover() -> str:
    """Take back jobs of dead workers, expire late ones, wake the workers for whatever is ready."""
    from worker.maintenance import recover
    from worker.runtime import get_runtime

    return recover(get_runtime())


@app.task(name=TaskName.FORGET)
def forget_idempotency_keys() -> str:
    """Free the idempotency keys of old jobs, and forget workers not heard of for a day."""
    from worker.maintenance import forget
    from worker.runtime import get_runtime

    return forget(get_runtime())

"""The Celery tasks: thin. They import their code when they run, so that the pool's parent stays small.

What the clock does, also when an older beat asks for it, sends no events: Flower shows work.
"""

from shared.broker.app import TaskName
from worker.main import app


@app.task(name=TaskName.SCORE)
def score(lane: str, model_version_id: int) -> str:
    """Claim, score and store the queued jobs of a model version in a lane."""
    from worker.drain import drain
    from worker.process import working

    with working() as runtime:
        return drain(runtime, lane, model_version_id)


@app.task(name=TaskName.RECOVER, send_events=False)
def recover() -> str:
    """Recover now, as every worker does by the clock: for the impatient, and for the beat of an older release."""
    from worker.maintenance.recovery import recover
    from worker.process import working

    with working() as runtime:
        return recover(runtime)


@app.task(name=TaskName.FORGET, send_events=False)
def forget_idempotency_keys() -> str:
    """Free the idempotency keys of old jobs now, as every worker does by the clock."""
    from worker.maintenance.recovery import forget
    from worker.process import working

    with working() as runtime:
        return forget(runtime)

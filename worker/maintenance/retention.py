"""A recurring task that erases old jobs."""

from worker.runtime import Runtime

PART = 0.4  # of the time between two recoveries, for one run: the same thread does both


def erase(runtime: Runtime) -> str:
    """Erase jobs that ended JOB_DAYS ago, for about two seconds; raise SQLAlchemyError without a database."""
    from shared.jobs.erasure import erase_old  # one worker process at a time erases, and the others can do without

    settings = runtime.settings
    jobs, rows = erase_old(runtime.bulk_engine, settings.job_days, seconds=PART * settings.recover_seconds)
    return f"{jobs} jobs with {rows} rows erased"

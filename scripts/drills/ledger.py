"""The check that every accepted job succeeded exactly once: answers to clients against the database."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from scripts.drills.stack import Broken, Stack

_JOBS = """
SELECT j.id, j.state, j.row_count, count(DISTINCT i.id), count(o.id), count(DISTINCT o.input_id), j.attempt
FROM jobs j LEFT JOIN model_inputs i ON i.job_id = j.id LEFT JOIN model_outputs o ON o.input_id = i.id
GROUP BY j.id
"""
_CHUNKS = "SELECT attempt, count(*) FROM job_chunks GROUP BY attempt"


@dataclass
class Ledger:
    """The sum of it."""

    jobs: int
    rows: int
    outputs: int
    attempts: Counter[int]  # how many jobs were claimed so many times; files are claimed by chunks
    chunk_attempts: Counter[int]


def make_ledger(stack: Stack, accepted: Mapping[str, int], *, others: int) -> Ledger:
    """Compare; `others` jobs were accepted besides. Raises Broken at the first job that is not as promised."""
    rows = outputs = 0
    attempts: Counter[int] = Counter()
    chunks = {int(attempt): int(count) for attempt, count in stack.sql(_CHUNKS)}
    stored = {row[0]: row[1:] for row in stack.sql(_JOBS)}
    if lost := [job for job in accepted if job not in stored]:
        raise Broken(f"{len(lost)} accepted jobs are not in the database, e.g. {lost[0]}")
    if len(stored) != len(accepted) + others:
        raise Broken(f"{len(stored)} jobs are stored, but {len(accepted) + others} were accepted")
    for job, count in accepted.items():
        state, *numbers = stored[job]
        row_count, inputs, made, scored, attempt = map(int, numbers)
        if state != "succeeded" or not row_count == inputs == made == scored == count:
            raise Broken(
                f"job {job} of {count} rows is {state}: {inputs} inputs, {made} outputs of {scored} of them, "
                f"claimed {attempt} times"
            )
        rows, outputs = rows + count, outputs + made
        attempts[attempt] += 1
    del attempts[0]
    return Ledger(len(accepted), rows, outputs, attempts, Counter(chunks))

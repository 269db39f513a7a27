"""The driver's report as Markdown."""

import platform
from collections.abc import Iterable, Mapping, Sequence

from scripts.drills.drills import Outcome
from scripts.drills.ledger import Ledger

_TIMES = {1: "once", 2: "twice"}


def render(
    facts: Mapping[str, str], checks: Sequence[tuple[str, str]], outcomes: Sequence[Outcome], ledger: Ledger, files: int
) -> str:
    """Return the whole page."""
    tries, chunk_tries = (
        ", ".join(
            f"{count} of them {_TIMES.get(number, f'{number} times')}" for number, count in sorted(attempts.items())
        )
        for attempts in (ledger.attempts, ledger.chunk_attempts)
    )
    parts = [
        "# The stack of docker-compose.yml, tried out",
        "Written by `make e2e-compose`, which starts the stack, drives it through its published ports, breaks it while"
        " clients go on submitting, and compares what they were promised with what the database holds.",
        _table(("what", "found"), facts.items()),
        "## In peace",
        _table(("what", "found"), checks),
        "## Under load",
        "One client waits for single predictions, one submits batches, two submit rows, of three models, all the time."
        " Each sends a request again under its Idempotency-Key until it is accepted, and takes the API's other port"
        " when it cannot connect. `gap`: the longest time in which no client was accepted. `drained`: from the end of"
        " the disturbance until everything accepted before was done.",
        _table(
            ("while this was done", "s", "accepted", "gap s", "drained s", "slowest /predict s", "sent again"),
            (
                (
                    one.name,
                    f"{one.seconds:.1f}",
                    str(one.accepted),
                    f"{one.gap:.1f}",
                    f"{one.drained:.1f}",
                    "-" if one.slowest is None else f"{one.slowest:.2f}",
                    one.again,
                )
                for one in outcomes
            ),
        ),
        "## In the end",
        f"{ledger.jobs} jobs with {ledger.rows} rows were accepted, {files} of them files, and every one succeeded"
        f" exactly once: {ledger.outputs} outputs, one for each row, and no job that nobody was promised. Single rows"
        f" and batches were claimed: {tries}. Chunks of files: {chunk_tries}. What was claimed again had lost its"
        " worker or its claim, and what a lost worker wrote late would count for nothing.",
    ]
    return "\n\n".join(parts) + "\n"


def describe_machine() -> str:
    """Return the machine in a few words."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return f"{len(names)} x {names[0] if names else platform.processor()}, {platform.system()} {platform.release()}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

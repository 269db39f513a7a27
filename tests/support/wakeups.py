"""A Celery app that sends nothing, for tests of wake-ups."""

from typing import Any

from shared.broker.app import TaskName

MESSAGE = (TaskName.SCORE, ("interactive", 1), "interactive")


class Broker:
    """A Celery app that notes what it is asked to send, or cannot."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, tuple[Any, ...], str]] = []
        self.titles: list[str | None] = []
        self.tried = 0
        self.error: Exception | None = None

    def send_task(self, name: str, *, args: tuple[Any, ...], queue: str, shadow: str | None) -> None:
        self.tried += 1
        if self.error is not None:
            raise self.error
        self.sent.append((name, args, queue))
        self.titles.append(shadow)

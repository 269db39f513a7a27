"""The log lines that a test causes, as they are written: fields are found there and nowhere later."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from shared.observability.logs import make_formatter


class _Keeper(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(make_formatter("json"))
        self.entries: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.entries.append(json.loads(self.format(record)))


@contextmanager
def written(name: str) -> Iterator[list[dict[str, Any]]]:
    """Yield the entries that a logger and those below it write meanwhile, whatever their level."""
    logger, keeper = logging.getLogger(name), _Keeper()
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(keeper)
    try:
        yield keeper.entries
    finally:
        logger.removeHandler(keeper)
        logger.setLevel(level)

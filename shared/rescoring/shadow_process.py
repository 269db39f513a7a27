"""A challenger in a process of its own, which holds nothing but the model: it can crash, hang or eat its memory."""

import contextlib
import logging
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import orjson

from shared.child import container_memory
from shared.observability.logs import current_format
from shared.tables import ModelVersion

LOAD_SECONDS = 600.0  # nobody waits for it, and it has the lowest priority
MAX_ANSWER_BYTES = 16_000_000
CONTAINER_SHARE = 0.5  # of a container's memory, at most: the rest is for who serves in it
NOT_LOADED = "not_loaded"
_ROOT = Path(__file__).resolve().parents[2]
_OWN = ("DATABASE_URL", "REDIS_URL")  # what a model has no use for

log = logging.getLogger(__name__)

# Of a row: prediction, label, probability; or the code of its fault.
Result = tuple[float, str | None, float | None] | str


class ShadowFailed(Exception):
    """The challenger did not score: `reason` is a sentence, and `code` the fault of a row that was alone."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class ShadowProcess:
    """The process of one challenger; one thread uses it."""

    def __init__(self, version: dict[str, Any], directory: Path, *, memory_mb: int, niceness: int = 19) -> None:
        """Start the process, and let it load the version (its columns by name): `is_ready` reports the end of the load.

        Raises ShadowFailed if the process does not start.
        """
        memory_mb, self._limit = _memory_of(memory_mb)
        self._is_ready = False
        self._load_until = time.monotonic() + LOAD_SECONDS
        near, far = socket.socketpair()
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):  # a message that stops in the middle
            near.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", 10, 0))
        environment = {name: value for name, value in os.environ.items() if name not in _OWN}
        with far:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "shared.rescoring.shadow_child", str(far.fileno())],
                cwd=_ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[far.fileno()],
            )
        self._connection = Connection(near.detach())
        about = {
            "version": version,
            "directory": str(directory.resolve()),
            "memory_mb": memory_mb,
            "niceness": niceness,
            "log_level": logging.getLevelName(logging.getLogger().level),
            "log_form": current_format(),
        }
        try:
            self._connection.send_bytes(orjson.dumps(about))
        except OSError as error:
            self.close()
            raise ShadowFailed(NOT_LOADED, "Its process did not begin to load.") from error

    def is_ready(self, seconds: float = 0.0) -> bool:
        """Return whether the version is loaded, after waiting for `seconds`; raise ShadowFailed if it cannot be loaded.

        The process is then gone, as it is after LOAD_SECONDS.
        """
        if self._is_ready:
            return True
        is_late = time.monotonic() + seconds >= self._load_until
        try:
            if not is_late and not self._connection.poll(seconds):
                return False
            answer = self._ask([], 0.0, "load", limit=LOAD_SECONDS)
        except ShadowFailed as failure:
            raise ShadowFailed(NOT_LOADED, failure.reason) from failure
        if "refusal" in answer:
            self.close()
            hint = f" It may take {self._limit}." if "MemoryError" in answer["refusal"] else ""
            raise ShadowFailed(NOT_LOADED, f"It cannot be loaded: {answer['refusal']}{hint}")
        self._is_ready = True
        return True

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def score(self, rows: Sequence[str], foreign: Sequence[int], seconds: float, *, is_exact: bool) -> list[Result]:
        """Score rows (n JSON objects); `foreign` are the places of rows of other cards. By its pipeline if `is_exact`.

        Raises ShadowFailed; the process is then gone.
        """
        task = {"foreign": list(foreign), "is_exact": is_exact, "seconds": seconds}
        messages = [orjson.dumps(task), ("[" + ",".join(rows) + "]").encode()]
        answer = self._ask(messages, seconds, f"score {len(rows)} rows", limit=seconds)
        try:
            results = [_read(each) for each in answer["results"]]
            if len(results) == len(rows):
                return results
        except (KeyError, TypeError, ValueError):
            pass
        self.close()
        raise ShadowFailed("model_failed", f"It gave no scores ({str(answer.get('failure', 'no answer'))[:100]}).")

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._connection.close()
        self._process.wait(10)

    def _ask(self, messages: Sequence[bytes], seconds: float, purpose: str, *, limit: float) -> dict[str, Any]:
        until = time.monotonic() + seconds
        try:
            for message in messages:
                self._connection.send_bytes(message)
            if not self._connection.poll(max(0.0, until - time.monotonic())):
                self.close()
                raise ShadowFailed("timeout", f"It did not {purpose} within {limit:g} s, and was ended.")
            answer = orjson.loads(self._connection.recv_bytes(MAX_ANSWER_BYTES))
        except (EOFError, OSError, ValueError) as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1)  # whoever closed the pipe is ending, and its exit status says how
            self.close()
            code = self._process.returncode
            raise ShadowFailed(
                "worker_lost", f"Its process ended while it had to {purpose} (exit status {code})."
            ) from error
        if not isinstance(answer, dict) or answer.get("is_full"):
            self.close()
            raise ShadowFailed("out_of_memory", f"It needed more than {self._limit} to {purpose}.")
        return answer


def _memory_of(memory_mb: int) -> tuple[int, str]:
    """Return the megabytes that the process may take, of the setting and of its container, and which they are."""
    container = container_memory()
    share = memory_mb if container is None else int(container * CONTAINER_SHARE) // 2**20
    if share < memory_mb:
        return share, f"{share} MB, half of its container's memory,"
    return memory_mb, f"SHADOW_MEMORY_MB={memory_mb}"


def columns_of(version: ModelVersion) -> dict[str, Any]:
    """Return what the process of a version has to know of its row."""
    return {name: getattr(version, name) for name in ("name", "version", "uri", "sha256", "card", "scorer")}


def _read(result: Any) -> Result:  # noqa: ANN401 - any JSON
    if isinstance(result, str):
        return result[:64]
    prediction, label, probability = result
    return (
        float(prediction),
        None if label is None else str(label),
        None if probability is None else float(probability),
    )

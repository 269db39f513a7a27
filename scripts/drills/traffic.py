"""Clients that submit during the drills, and remember each accepted job."""

import http.client
import itertools
import json
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from scripts.checkout import ROOT
from scripts.drills.stack import Broken

# the service's own words, whatever those of a model's client are; files as they are
NATIVE = "application/vnd.guichet+json, */*;q=0.5"
MODELS = ("attrition", "credit", "energy")
PATIENCE_SECONDS = 120.0  # how long a client goes on with one request
PAUSE_SECONDS = 0.03  # between two requests of a client
BATCH_ROWS = 100  # the most that goes to the interactive lane
_AGAIN = (409, 429, 503)  # the first one still commits, too many requests, not now


class Client:
    """Speaks with an API that may have several addresses, as a load balancer in front of them would."""

    def __init__(self, ports: Sequence[int], key: str) -> None:
        self._ports = itertools.cycle(ports)
        self._port = next(self._ports)
        self._key = key
        self._connection: http.client.HTTPConnection | None = None

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Send one request; return status and body. Raises OSError or HTTPException, and takes the next address."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            self._connection.request(
                method,
                path,
                body,
                {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json", "Accept": NATIVE}
                | (headers or {}),
            )
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            self._leave()
            raise
        if answer.will_close:
            self._connection.close()
            self._connection = None
        return answer.status, content

    def _leave(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection, self._port = None, next(self._ports)

    def json(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        """Send JSON, and read the answer as JSON."""
        data = None if body is None else json.dumps(body).encode()
        status, text = self.ask(method, path, data, {name.replace("_", "-"): value for name, value in headers.items()})
        return status, json.loads(text) if text else None


@dataclass
class Traffic:
    """Clients in threads of their own. `accepted` holds the accepted jobs."""

    ports: Sequence[int]
    key: str
    clients: int = 4
    accepted: dict[str, int] = field(default_factory=dict)  # job id -> rows
    files: dict[str, int] = field(default_factory=dict)  # those of them that are CSV files
    accepted_at: list[float] = field(default_factory=list)  # seconds since the start, of every acceptance
    waits: list[tuple[float, float]] = field(default_factory=list)  # when /predict was asked, seconds until its 200
    hitches: Counter[str] = field(default_factory=Counter)  # requests that had to be sent again, by reason
    broken: list[str] = field(default_factory=list)  # what no client should ever see

    def __post_init__(self) -> None:
        self._rows = {
            name: json.loads((ROOT / "examples" / name / "rows.json").read_text(encoding="utf-8")) for name in MODELS
        }
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(self.clients)]

    def start(self) -> None:
        """Begin to submit."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let every client finish its request."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout=PATIENCE_SECONDS + 60)

    def now(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self._began

    def longest_gap(self, since: float) -> float:
        """Return the longest time without an accepted job, from a moment until now."""
        moments = [since, *sorted(moment for moment in list(self.accepted_at) if moment > since), self.now()]
        return max(after - before for before, after in itertools.pairwise(moments))

    def _run(self, number: int) -> None:
        client, choice = Client(self.ports, self.key), random.Random(number)  # noqa: S311 - which row is sent
        while not self._stopping.is_set():
            model = choice.choice(MODELS)
            rows = self._rows[model]
            # One client waits for its predictions; the others show whether anyone can submit meanwhile. Large batches
            # keep the workers busy, so that a kill hits what they hold.
            kind = {0: "predict", 1: "predict_batch"}.get(number, "jobs")
            count = BATCH_ROWS if kind == "predict_batch" else 1
            picked = [choice.choice(rows) for _ in range(count)]
            body = {"model": model} | ({"rows": picked} if count > 1 else {"features": picked[0]})
            try:
                self._submit(client, kind, body, count)
            except Broken as problem:
                self.broken.append(str(problem))
            time.sleep(PAUSE_SECONDS)

    def _submit(self, client: Client, kind: str, body: object, rows: int) -> None:
        key = str(uuid.uuid4())
        prefer = "wait=10" if kind == "predict" else "respond-async"
        asked_at = self.now()
        while True:
            try:
                status, answer = client.json("POST", f"/{kind}", body, Idempotency_Key=key, Prefer=prefer)
            except (OSError, http.client.HTTPException) as error:
                status, answer = 0, type(error).__name__
            if status in (200, 202):
                break
            if status not in (0, *_AGAIN):
                raise Broken(f"POST /{kind} was answered {status}: {json.dumps(answer)[:500]}")
            self.hitches[f"no answer ({answer})" if status == 0 else f"answer {status}"] += 1
            if self.now() - asked_at > PATIENCE_SECONDS:
                raise Broken(f"POST /{kind} was not accepted for {PATIENCE_SECONDS:.0f} s")
            time.sleep(0.1)
        with self._lock:
            self.accepted[answer.get("job_id") or answer["id"]] = rows
            self.accepted_at.append(self.now())
            if kind == "predict" and status == 200:
                self.waits.append((asked_at, self.now() - asked_at))

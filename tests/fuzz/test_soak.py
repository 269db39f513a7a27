"""A soak: requests of every kind, from callers who stay and callers who leave, while the service is watched.

FUZZ_REQUESTS sets how many. What the processes hold is looked at between two blocks of requests, when nothing is under
way: it must not go on growing.
"""

import asyncio
import gzip
import json
import os
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

import psutil
import pytest
from redis import Redis as Client
from sqlalchemy import Engine, func, select, text

from shared.database.engine import make_engine, reader
from shared.jobs.queries.jobs import TERMINAL
from shared.tables import ErrorLog, Job
from tests.contracts.helpers import apart, wait_until
from tests.fuzz.test_access import make_key
from tests.fuzz.wire import CSV, JSON, Answer, Wire
from tests.support.csv_jobs import file_of
from tests.support.stack import Stack

pytestmark = pytest.mark.fuzz

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "10000"))
BLOCKS = 20
WARM = 8  # blocks after which caches, pools and the allocator hold what they will hold
CALLERS = 16
SEED = 20260101
# A request that is not forgotten costs 2 kB and more (its task, its buffers); a kind is one in ten or twenty: that is
# 100 bytes of each request, 100 kB of a thousand. The allocator's arenas fill up beside it: the API took 14 MB more
# from the 1,600th request to the 4,000th, and none from the 12,000th to the 30,000th. Short runs find large leaks only.
BYTES_OF_A_REQUEST = 100
BYTES_BY_CHANCE = 25_000_000
MORE_DESCRIPTORS = 6  # a pool may open one more connection when two requests meet
MORE_THREADS = 4
GONE = (ConnectionError, asyncio.IncompleteReadError)


@dataclass
class Soak:
    """What the callers know of each other: recent jobs to ask for, and what came of everything."""

    port: int
    row: dict[str, Any]
    key: dict[str, str]
    jobs: deque[str] = field(default_factory=lambda: deque(["none-yet"], maxlen=200))
    files: deque[str] = field(default_factory=lambda: deque(["none-yet"], maxlen=50))
    accepted: set[str] = field(default_factory=set)
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def note(self, kind: str, answer: Answer, *expected: int) -> None:
        """Count an answer; keep it where its status is not one that is meant."""
        self.statuses[f"{answer.status}"] += 1
        if answer.status not in expected:
            self.wrong.append(f"{kind}: {answer.status} {answer.body[:300]!r}")
        elif answer.status == 202 or (answer.status == 200 and kind in ("row", "batch")):
            body = answer.json()
            job = body.get("id") or body["job_id"]
            self.accepted.add(job)
            (self.files if kind == "file" else self.jobs).append(job)

    def body(self, **changes: Any) -> bytes:
        """Return the body of a request with a row."""
        return json.dumps({"features": self.row | changes}).encode()


Kind = Callable[[Soak, Wire, random.Random], Awaitable[None]]


# ── who stays ────────────────────────────────────────────────────────────────────────────────────────────────────


async def row(soak: Soak, wire: Wire, chance: random.Random) -> None:
    packed = chance.random() < 0.2
    body, headers = soak.body(), dict(JSON)
    if packed:
        body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
    path = chance.choice(["/predict", "/models/attrition/predict"])
    soak.note("row", await wire.ask("POST", path, body, headers), 200, 202)


async def ticket(soak: Soak, wire: Wire, chance: random.Random) -> None:
    headers = JSON | ({"Idempotency-Key": f"soak-{chance.getrandbits(64)}"} if chance.random() < 0.5 else {})
    soak.note("ticket", await wire.ask("POST", "/jobs", soak.body(), headers), 202)


async def batch(soak: Soak, wire: Wire, chance: random.Random) -> None:
    rows = [soak.row] * chance.randint(1, 20)
    if chance.random() < 0.3:
        rows[0] = soak.row | {"age": "x"}
    answer = await wire.ask("POST", "/predict_batch", json.dumps({"rows": rows}).encode(), JSON)
    soak.note("batch", answer, *((200, 202, 422) if rows[0] is not soak.row else (200, 202)))


async def file(soak: Soak, wire: Wire, chance: random.Random) -> None:
    content = file_of([soak.row] * chance.randint(1, 30))
    # Four files are received at a time of one caller: more are 429.
    soak.note("file", await wire.ask("POST", "/predict_csv", content, CSV), 202, 429)


async def other_protocols(soak: Soak, wire: Wire, chance: random.Random) -> None:
    frame = json.dumps({"dataframe_records": [soak.row]}).encode()
    soak.note("invocations", await wire.ask("POST", "/invocations", frame, JSON), 200)
    soak.note("v2", await wire.ask("GET", "/v2/models/attrition"), 200)


async def poll(soak: Soak, wire: Wire, chance: random.Random) -> None:
    job = chance.choice(soak.jobs)
    path = chance.choice([f"/jobs/{job}", f"/jobs/{job}/result", f"/jobs/{job}/events", f"/jobs/{job}/cancel"])
    answer = await wire.ask("POST" if path.endswith("cancel") else "GET", path)
    soak.statuses[str(answer.status)] += 1
    if answer.status not in (200, 202, 409, *((404,) if job == "none-yet" else ())):
        soak.wrong.append(f"poll {path}: {answer.status} {answer.body[:300]!r}")


async def look(soak: Soak, wire: Wire, chance: random.Random) -> None:
    paths = [
        "/health",
        "/livez",
        "/readyz",
        "/models",
        "/models/attrition",
        "/jobs?limit=5",
        "/version",
        "/openapi.json",
    ]
    soak.note("look", await wire.ask("GET", chance.choice(paths)), 200)


async def download(soak: Soak, wire: Wire, chance: random.Random) -> None:
    job = chance.choice(soak.files)
    headers = chance.choice(
        [{}, {"Range": "bytes=0-9"}, {"Accept": "application/vnd.apache.parquet"}, {"Accept": "a/b"}]
    )
    path = chance.choice([f"/jobs/{job}/output.csv", f"/jobs/{job}/output.csv?partial=true", f"/jobs/{job}/result"])
    expected = (200, 202, 206, 404, 406, 409) if job == "none-yet" else (200, 202, 206, 406, 409)
    answer = await wire.ask("GET", path, headers=headers)
    soak.statuses[str(answer.status)] += 1
    if answer.status not in expected:
        soak.wrong.append(f"download {path}: {answer.status} {answer.body[:300]!r}")


# ── who is refused ───────────────────────────────────────────────────────────────────────────────────────────────


async def refusal(soak: Soak, wire: Wire, chance: random.Random) -> None:
    batch = json.dumps({"rows": [{}] * 3_000}).encode()
    method, path, body, headers, expected = chance.choice(
        [
            ("POST", "/predict", soak.body(age="x"), JSON, 422),
            ("POST", "/predict", soak.body(stranger=1), JSON, 422),
            ("POST", "/predict", b'{"features": {"age": ', JSON, 400),
            ("POST", "/predict", b"\xff\xfe{\x00}\x00", JSON, 415),
            ("POST", "/predict", soak.body(), {"Content-Type": "text/plain"}, 415),
            ("POST", "/predict", soak.body(), JSON | {"Content-Encoding": "br"}, 415),
            ("POST", "/predict", soak.body(), JSON | {"Idempotency-Key": "x" * 256}, 400),
            ("POST", "/predict?version=2", soak.body(), JSON, 422),
            ("POST", "/predict_batch", batch, JSON, 413),
            ("POST", "/predict_csv", b"a,b\n1,2\n", CSV, 422),
            ("POST", "/predict_csv", b"", CSV, 422),
            ("POST", "/predict_csv", b"\x89PNG\r\n\x1a\n", CSV, 415),
            ("POST", "/invocations", b'{"inputs": [NaN, 1}', JSON, 400),
            ("POST", "/v2/models/attrition/infer", b'{"inputs": [1]}', JSON, 400),
            ("DELETE", "/jobs", b"", {}, 405),
            ("GET", "/jobs?limit=0", b"", {}, 422),
        ]
    )
    full = (429,) if path == "/predict_csv" else ()  # as of any file
    soak.note(f"refusal {path}", await wire.ask(method, path, body, headers), expected, *full)


async def nothing_there(soak: Soak, wire: Wire, chance: random.Random) -> None:
    number = chance.getrandbits(64)
    path = chance.choice(
        [f"/jobs/{number}", f"/models/m{number}", f"/{number}", f"/{'a' * 3_000}", "/jobs/%00", "/%ff"]
    )
    soak.note(f"404 {path[:30]}", await wire.ask("GET", path), 404, 422)


async def stranger(soak: Soak, wire: Wire, chance: random.Random) -> None:
    key = f"Bearer guichet_{chance.getrandbits(120):043d}" if chance.random() < 0.8 else "Basic YTpi"
    async with Wire(soak.port, {"Authorization": key}) as other:
        soak.note("unknown key", await other.ask("POST", "/predict", soak.body(), JSON), 401)


# ── who leaves ───────────────────────────────────────────────────────────────────────────────────────────────────


async def follower(soak: Soak, wire: Wire, chance: random.Random) -> None:
    """Follows a job and leaves in the middle."""
    async with Wire(soak.port, soak.key) as other:
        answer = await other.ask("POST", "/predict_csv", file_of([soak.row] * 40), CSV)
        soak.note("file", answer, 202, 429)
        if answer.status == 202:
            await other.send("GET", f"/jobs/{answer.json()['id']}/events")
            status, _ = await other.receive_head()
            if status not in (200, 204):
                soak.wrong.append(f"events: {status}")
            await asyncio.sleep(chance.random() * 0.05)


async def waiter(soak: Soak, wire: Wire, chance: random.Random) -> None:
    """Asks, and leaves before the answer."""
    async with Wire(soak.port, soak.key) as other:
        await other.send("POST", "/predict", soak.body(), JSON)
        await asyncio.sleep(chance.random() * 0.02)


async def half_closed(soak: Soak, wire: Wire, chance: random.Random) -> None:
    """Closes its own side behind the request, or in the middle of its body; the rest may be answered."""
    async with Wire(soak.port, soak.key) as other:
        writer = await other.open()
        cut = chance.random() < 0.5
        head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {soak.key['Authorization']}\r\n"
        body = soak.body()
        writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        writer.write(body[: len(body) // 2] if cut else body)
        with suppress(*GONE):
            writer.write_eof()
            answer = await other.receive()
            soak.note("row" if answer.status in (200, 202) else "half-closed", answer, 200, 202, 400)


async def pipeline(soak: Soak, wire: Wire, chance: random.Random) -> None:
    """Sends several requests at once and leaves."""
    async with Wire(soak.port, soak.key) as other:
        for _ in range(5):
            await other.send("GET", "/models/attrition")
        await asyncio.sleep(chance.random() * 0.01)


async def silence(soak: Soak, wire: Wire, chance: random.Random) -> None:
    """Connects, says nothing or half a line, and leaves."""
    async with Wire(soak.port) as other:
        (await other.open()).write(chance.choice([b"", b"GET", b"GET /livez HTTP/1.1\r\nHost: "]))
        await asyncio.sleep(chance.random() * 0.02)


KINDS: dict[Kind, int] = {
    **{row: 25, ticket: 10, batch: 6, file: 2, other_protocols: 4, poll: 14, look: 6, download: 3},
    **{refusal: 14, nothing_there: 5, stranger: 4},
    **{follower: 1, waiter: 2, half_closed: 2, pipeline: 1, silence: 1},
}


# ── what is watched ──────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Sample:
    """What the service holds at one moment."""

    requests: int
    held: dict[str, tuple[int, int, int]]  # role -> bytes, descriptors, threads of its processes
    connections: int  # of the database
    redis_clients: int
    error_logs: int
    redis_keys: int
    redis_bytes: int


def take_sample(service: Stack, workers: Stack, engine: Engine, requests: int) -> Sample:
    """Look at each process of the service, and at what its servers hold for it."""
    roles = {"api": service.processes["api"].pid}
    if service.runtime == "queue":
        roles |= {name: process.pid for name, process in workers.processes.items() if name != "api"}
    held = {}
    for role, pid in roles.items():
        main = psutil.Process(pid)
        tree = [main, *main.children(recursive=True)]
        held[role] = (
            sum(process.memory_info().rss for process in tree),
            sum(process.num_fds() for process in tree),
            sum(process.num_threads() for process in tree),
        )
    with reader(engine).connect() as connection:
        logged = connection.scalar(select(func.count()).select_from(ErrorLog)) or 0
        connections = 0
        if service.runtime == "queue":
            connections = connection.scalar(text("SELECT count(*) FROM pg_stat_activity")) or 0
    keys = used = clients = 0
    if workers.redis is not None:
        with Client.from_url(workers.redis.url) as redis:
            keys, used = redis.dbsize(), redis.info("memory")["used_memory"]
            clients = redis.info("clients")["connected_clients"]
    return Sample(requests, held, connections, clients, logged, keys, used)


def check_growth(samples: list[Sample]) -> list[str]:
    """Return what went on growing after the warm-up, as sentences."""
    warm = samples[WARM:]
    numbers = [sample.requests for sample in warm]
    sentences = []

    def check_bytes(what: str, sizes: list[int]) -> None:
        grown = linear_regression(numbers, sizes).slope * (numbers[-1] - numbers[0])
        if grown > BYTES_BY_CHANCE + BYTES_OF_A_REQUEST * (numbers[-1] - numbers[0]):
            sentences.append(f"{what} grew by {grown / 1e6:.1f} MB in {numbers[-1] - numbers[0]} requests: {sizes}")

    def check_count(what: str, counts: list[int], more: int) -> None:
        if median(counts[-4:]) > median(counts[:4]) + more:
            sentences.append(f"{what} went up: {counts}")

    for role in warm[0].held:
        check_bytes(f"memory of {role}", [sample.held[role][0] for sample in warm])
        check_count(f"descriptors of {role}", [sample.held[role][1] for sample in warm], MORE_DESCRIPTORS)
        check_count(f"threads of {role}", [sample.held[role][2] for sample in warm], MORE_THREADS)
    check_bytes("memory of Redis", [sample.redis_bytes for sample in warm])
    check_count("keys of Redis", [sample.redis_keys for sample in warm], 20)
    check_count("connections of Redis", [sample.redis_clients for sample in warm], MORE_DESCRIPTORS)
    check_count("connections of the database", [sample.connections for sample in warm], MORE_DESCRIPTORS)
    return sentences


def table(runtime: str, samples: list[Sample]) -> str:
    """Return the samples as a table of docs/security.md: at the warm-up, in the middle, at the end."""
    lines = [f"| {runtime}: requests | process | MB | descriptors | threads | error_logs | Redis keys |"]
    lines.append("|---|---|---|---|---|---|---|")
    for sample in (samples[WARM], samples[(WARM + len(samples)) // 2], samples[-1]):
        for role, (size, descriptors, threads) in sample.held.items():
            lines.append(
                f"| {sample.requests:,} | {role} | {size / 1e6:.0f} | {descriptors} | {threads} "
                f"| {sample.error_logs} | {sample.redis_keys} |"
            )
    return "\n".join(lines)


def test_nothing_goes_on_growing_under_requests_of_every_kind(
    stack: Stack, attrition_row: dict[str, Any], tmp_path: Path
) -> None:
    began = datetime.now(UTC) - timedelta(seconds=1)
    with apart(stack, tmp_path, AUTH="keys") as service:
        key = make_key(service, "soak", "predict,read")
        engine = make_engine(service.database_url)
        soak = Soak(service.port, attrition_row, key)
        samples = [take_sample(service, stack, engine, 0)]
        for block in range(BLOCKS):
            asyncio.run(one_block(soak, block))
            wait_until(lambda: left(engine, began) == 0 or None, seconds=120)
            samples.append(take_sample(service, stack, engine, (block + 1) * (REQUESTS // BLOCKS)))
        sums = ", ".join(f"{status}: {count}" for status, count in sorted(soak.statuses.items()))
        print(f"\nmake fuzz: {stack.runtime}, a soak of {REQUESTS:,} requests, answers {sums}")
        print(table(stack.runtime, samples))
        assert not soak.wrong, "\n".join([f"{len(soak.wrong)} answers are not those that are meant:", *soak.wrong[:20]])
        with reader(engine).connect() as connection:
            stored = set(connection.scalars(select(Job.id).where(Job.created_at >= began)))
        assert soak.accepted <= stored
        engine.dispose()
        with service.client(**key) as client:
            assert client.get("/health").json()["status"] == "ok"
        assert "Traceback" not in service.logs(lines=1_000_000)
        assert check_growth(samples) == []


def left(engine: Engine, began: datetime) -> int:
    """Return how many jobs since `began` have not ended."""
    with reader(engine).connect() as connection:
        query = select(func.count()).select_from(Job).where(Job.created_at >= began, Job.state.not_in(TERMINAL))
        return connection.scalar(query) or 0


async def one_block(soak: Soak, block: int) -> None:
    """Let the callers send a block of requests."""
    numbers = iter(range(REQUESTS // BLOCKS))
    kinds, weights = list(KINDS), list(KINDS.values())

    async def call() -> None:
        async with Wire(soak.port, soak.key) as wire:
            for number in numbers:
                chance = random.Random(f"{SEED} {block} {number}")
                kind = chance.choices(kinds, weights)[0]
                try:
                    await kind(soak, wire, chance)
                except GONE as error:  # an answer to one who stays is missing
                    soak.wrong.append(f"{kind.__name__}: {type(error).__name__}")
                    wire.leave()

    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(call())

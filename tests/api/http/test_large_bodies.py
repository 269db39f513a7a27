"""Large hostile bodies: others are answered meanwhile, and what is too much is refused before it costs anything."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from api.jobs.json_body import MAX_DEPTH, ONE_ROW, Most, most_of, parse_json
from api.main import serve
from shared.errors import MalformedBody, TooLarge
from tests.support.small_service import small_service

BATCH = most_of(1_000, containers=10, features=1)
KEYS = b",".join(b'"k%d":1' % number for number in range(150_000))
HOSTILE = {
    "keys of a row": ("/predict", b'{"features":{%b}}' % KEYS, 413),
    "unique keys of a batch": ("/predict_batch", b'{"rows":[{%b},{%b}]}' % (KEYS, KEYS.replace(b"k", b"x")), 413),
    "unknown features": ("/predict", b'{"features":{%b}}' % KEYS[:500_000].rpartition(b",")[0], 422),
    "empty rows": ("/predict_batch", b'{"rows":[%b{}]}' % (b"{}," * 1_000_000), 413),
    "a key again and again": ("/predict", b'{%b"a":1}' % (b'"a":1,' * 90_000), 400),
    "values of a frame": ("/invocations", b'{"inputs":[%b1]}' % (b"NaN," * 200_000), 413),
    "values of a tensor": (
        "/v2/models/a/infer",
        b'{"inputs":[{"name":"x","shape":[1000001],"datatype":"FP64","data":[%b1]}]}' % (b"1," * 1_000_000),
        413,
    ),
}


async def post(app: Any, path: str, body: bytes) -> int:
    """Send a body as a server hands it over; return the status of the answer."""
    pieces = [body[start : start + 65_536] for start in range(0, len(body), 65_536)]
    messages = iter({"type": "http.request", "body": piece, "more_body": piece is not pieces[-1]} for piece in pieces)
    answer: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: dict[str, Any]) -> None:
        answer.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "root_path": "",
        "query_string": b"",
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1),
        "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
    }
    await app(scope, receive, send)
    return int(answer[0]["status"])


async def longest_wait(work: Callable[[], Awaitable[object]]) -> float:
    """Return the longest time, in seconds, that another task waited for its turn beyond its own sleep."""
    waits = [0.0]

    async def tick() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.002)
            waits.append(time.perf_counter() - began - 0.002)

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0)
    await work()
    await asyncio.sleep(0.01)
    ticking.cancel()
    return max(waits)


def test_others_are_answered_while_a_large_body_is_read(tmp_path: Path) -> None:
    service = small_service(tmp_path, "a")
    app = serve(service)

    async def send_all() -> None:
        async with service.router.lifespan_context(service):
            for name, (path, body, expected) in HOSTILE.items():
                statuses = []

                async def send_one(path: str = path, body: bytes = body, statuses: list[int] = statuses) -> None:
                    statuses.append(await post(app, path, body))

                used = time.thread_time()
                waited = await longest_wait(send_one)
                used = time.thread_time() - used
                assert statuses == [expected], name
                # The first bounds what the event loop does itself, the second what a thread does in one call.
                assert used < 0.5, name
                assert waited < 2, name

    asyncio.run(send_all())


@pytest.mark.parametrize(
    ("body", "most", "expected"),
    [
        (b'{"rows":[%b{}]}' % (b"{}," * 20_000), BATCH, TooLarge),
        (b'{"features":{%b}}' % KEYS, ONE_ROW, TooLarge),
        (b'{"rows":[{%b},{"x":1%b}]}' % (KEYS, b',"y":1' * 2_000), BATCH, TooLarge),
        (b"[" * 60_000, ONE_ROW, MalformedBody),
        (
            b'{"a":[%b]}' % (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"," * 60_000),
            most_of(0, containers=0, features=0),
            None,
        ),
    ],
    ids=["rows", "keys", "keys of a batch", "depth", "commas"],
)
def test_limits_are_checked_before_the_body_is_parsed(
    body: bytes, most: Any, expected: type[Exception] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Parsed(Exception):
        pass

    def parse(body: bytes) -> None:
        raise Parsed

    monkeypatch.setattr(orjson, "loads", parse)
    with pytest.raises(expected or Parsed):
        parse_json(body, most=most)


def test_keys_beyond_what_the_models_take_cost_the_same_however_many_they_are() -> None:
    """They are counted up to the limit, and never parsed: the parser would hold every other thread meanwhile."""

    most = Most(containers=100, keys=10_000)

    def seconds(count: int) -> float:
        body = b'{"rows":[{%b}]}' % b",".join(b'"k%d":1' % number for number in range(count))
        best = float("inf")
        for _ in range(20):
            began = time.thread_time()
            with pytest.raises(TooLarge):
                parse_json(body, most=most)
            best = min(best, time.thread_time() - began)
        return best

    assert seconds(80_000) < 2 * seconds(20_000)


def test_brackets_and_colons_in_texts_are_not_counted() -> None:
    text = "[{:" * 100_000
    assert parse_json(orjson.dumps({"features": {"x": text}})) == {"features": {"x": text}}

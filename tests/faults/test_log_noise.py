"""What is logged while a server is away: a state once, no traceback, and few bytes however long it lasts."""

import json
import time

import pytest

from scripts.servers.redis import Redis
from tests.faults.conftest import Service, rows_to_score

OUTAGE_SECONDS = 60
MOST_BYTES = 20_000  # of every process together


def logged(service: Service) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in service.stack.folder.glob("*.log")}


@pytest.mark.long
def test_minute_without_redis_leaves_few_bytes_in_the_logs(service: Service, fault_redis: Redis) -> None:
    rows = rows_to_score(OUTAGE_SECONDS * 5)
    before = logged(service)
    fault_redis.kill()
    try:
        with service.submitting(rows, rate=5, model="energy") as crowd:
            time.sleep(OUTAGE_SECONDS)
    finally:
        fault_redis.start()
    assert crowd.refused == []
    service.wait_until_all_ended(seconds=60)
    news = {name: text[len(before.get(name, b"")) :] for name, text in logged(service).items()}
    assert sum(map(len, news.values())) < MOST_BYTES, {name: len(text) for name, text in news.items()}
    lines = [json.loads(line) for text in news.values() for line in text.splitlines() if line.startswith(b"{")]
    assert any("Redis" in line["message"] or "redis" in line["message"] for line in lines)
    assert not any("exception" in line for line in lines)

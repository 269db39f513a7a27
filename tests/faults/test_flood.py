"""A flood of one model: the others of its lane get their turn, and wake-ups do not pile up."""

import threading
import time

import pytest
from redis import Redis as Client

from tests.faults.conftest import Service
from tests.faults.models import GOOD, SLOW

DRAIN_SECONDS = 3.0
FLOOD = 80  # batches of 100 rows, half a second each


@pytest.mark.long
def test_flood_of_one_model_lets_others_have_their_turn_and_bounds_the_wakeups(quiet: Service) -> None:
    stack = quiet.stack
    stack.start_api()
    stack.start_worker(DRAIN_SECONDS=str(DRAIN_SECONDS))
    stack.wait_for_workers(1)
    longest, seconds, over = 0, [], threading.Event()
    broker = Client.from_url(stack.env["REDIS_URL"])

    def measure() -> None:
        nonlocal longest
        while not over.wait(0.02):
            longest = max(longest, broker.llen("interactive"))

    watcher = threading.Thread(target=measure)
    watcher.start()
    try:
        with stack.client(Prefer="wait=60") as client, stack.client(Prefer="respond-async") as crowd:
            good = {"mark": GOOD, "chance": 0.25}
            assert client.post("/models/other/predict", json={"features": good}).status_code == 200
            rows = [{"mark": SLOW, "chance": 0.5}] * 100
            for _ in range(FLOOD):
                answer = client.post(
                    "/predict_batch", json={"model": "trap", "rows": rows}, headers={"Prefer": "respond-async"}
                )
                assert answer.status_code == 202, answer.text[:300]
            for _ in range(4):
                time.sleep(1.3)
                began = time.monotonic()
                answer = client.post("/models/other/predict", json={"features": good})
                seconds.append(time.monotonic() - began)
                assert answer.status_code == 200, answer.text
                # more of it arrives all the time
                crowd.post("/predict_batch", json={"model": "trap", "rows": rows})
        left = quiet.rows("SELECT count(*) FROM jobs WHERE state = 'queued' AND row_count = 100")[0][0]
    finally:
        over.set()
        watcher.join()
        broker.close()
    assert left > 10  # the flood went on all the time
    assert max(seconds) <= 2 * DRAIN_SECONDS, seconds
    assert longest <= 2  # one for each version
    assert quiet.rows("SELECT max(attempt) FROM jobs WHERE state <> 'queued'")[0][0] == 1

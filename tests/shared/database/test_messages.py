"""A database that refuses is told in one sentence: which role to be, what to run, where to look."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from api.keys import main as keys
from examples.build import make_named_views
from scripts.query_predictions import main as query_predictions
from shared.commands.registry import main as registry
from shared.database.engine import session_scope
from shared.database.messages import explain_database_error
from shared.registry.versions import resolve
from tests.support.cards import people, use
from tests.support.databases import postgres_engine, settings_for, settings_of

NOBODY = "postgresql+psycopg2://guichet:hunter2@127.0.0.1:1/guichet"


@pytest.fixture(scope="module")
def addresses(session_postgres):
    """The addresses of a role that writes rows and of one that only reads, as create_db makes them."""
    with postgres_engine(session_postgres, "faults_of_roles") as engine, engine.connect() as connection:
        for statement in (
            "CREATE ROLE faults_app LOGIN",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO faults_app",
            "CREATE ROLE faults_reader LOGIN",
            "ALTER ROLE faults_reader SET default_transaction_read_only = on",
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO faults_reader",
        ):
            connection.execute(text(statement))
        use(engine, people(views={"inputs": "their_inputs"}))
        url = engine.url.render_as_string(hide_password=False)
        yield {role: url.replace("postgres@", f"{role}@") for role in ("faults_app", "faults_reader")}
        engine.dispose()


@pytest.mark.parametrize(
    ("role", "command", "arguments"),
    [
        ("faults_app", registry, ["views", "m"]),
        ("faults_reader", registry, ["promote", "m@2"]),
        ("faults_reader", keys, ["create", "--name", "me"]),
    ],
)
def test_role_that_may_not_do_it_is_told_which_role_may(role, command, arguments, addresses, capsys):
    with settings_of(**settings_for(addresses[role])):
        assert command(arguments) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: the role of DATABASE_URL may not do this (")
    assert "views and tables are made as guichet_owner" in message
    assert message.count("\n") == 1


def test_example_is_built_without_its_views_by_a_role_that_makes_none(addresses, capsys):
    with settings_of(**settings_for(addresses["faults_app"])):
        with session_scope(read_only=True) as session:
            row = resolve(session, "m")
        make_named_views(row)
    assert capsys.readouterr().err.startswith("note: m has no SQL views: the role of DATABASE_URL may not do this (")


@pytest.mark.parametrize("command", [registry, query_predictions, keys])
def test_database_that_is_away_is_told_without_its_password(command, capsys):
    arguments = {registry: ["list"], query_predictions: [], keys: ["list"]}[command]
    with settings_of(**settings_for(NOBODY)):
        assert command(arguments) == 1
    message = capsys.readouterr().err
    assert "the database cannot be used (" in message
    assert message.endswith("check DATABASE_URL.\n")
    assert "hunter2" not in message


def test_row_that_somebody_else_stored_asks_to_run_it_again():
    assert explain_database_error(IntegrityError("INSERT", {}, Exception("duplicate key"))).endswith(
        "(duplicate key): run it again."
    )

"""A random secret shared by all processes of the service; the first process that needs it makes it."""

import secrets

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from shared.tables import ServiceSecret


def shared_secret(connection: Connection, name: str) -> bytes:
    """Return the 32 bytes of a secret, in the open transaction; make and store it the first time."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    made = insert(ServiceSecret).values(name=name, value=secrets.token_hex(32))
    connection.execute(made.on_conflict_do_nothing(index_elements=[ServiceSecret.name]))
    value = connection.scalar(select(ServiceSecret.value).where(ServiceSecret.name == name))
    assert value is not None
    return bytes.fromhex(value)

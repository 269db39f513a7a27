"""Changes of models: their aliases, and which versions serve. Runs in a thread."""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from api.models.catalog import Catalog
from shared.database.engine import session_scope

Result = TypeVar("Result")


def change(engine: Engine, catalog: Catalog, work: Callable[[Session], Result]) -> Result:
    """Do something to the registry in one transaction, and let this process know it when it is committed."""
    with session_scope(engine) as session:
        result = work(session)
    catalog.refresh()
    return result

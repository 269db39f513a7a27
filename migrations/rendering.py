"""How `make migration` writes column types of the service: as what they are made of, since their home can move."""

from typing import Literal

from alembic.autogenerate.api import AutogenContext
from sqlalchemy import TypeDecorator


def render_type(kind: str, thing: object, _: AutogenContext) -> str | Literal[False]:
    """Return a column type of ours as text of a migration, e.g. `sa.DateTime(timezone=True)`; False for what is not."""
    if kind == "type" and isinstance(thing, TypeDecorator):
        return f"sa.{thing.impl!r}"
    return False

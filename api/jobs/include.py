"""`?include=quality`: additional parts of a result.

A dependency of the route and no argument of its function: routes that carry the load are called without either, and
what has a query goes the long way (api/fast_path.py).
"""

from typing import Annotated, Literal

from fastapi import Depends, Query, Request

QUALITY = "quality"


async def _read_include(
    request: Request,
    include: Annotated[
        Literal["quality"] | None,
        Query(description="`quality`: how unusual each row is in the reference, and how certain its decision is"),
    ] = None,
) -> None:
    request.scope["include"] = include


INCLUDES = Depends(_read_include)

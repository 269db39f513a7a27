"""The class of the console's routes: it guards forms against other sites, and answers every error with a page."""

from collections.abc import Callable, Coroutine
from typing import Any

import orjson
from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from api.console.asking import Refused
from api.console.language import COOKIE, LANGUAGES, PARAMETER
from api.console.rendering import problem_page
from api.console.session import check_origin, is_encrypted
from api.errors.handlers import respond
from api.http.prefix import link

YEAR = 31_536_000  # seconds


class PageRoute(APIRoute):
    """A route that answers with pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the route's function with the guard before it and pages for its errors."""
        handle = super().get_route_handler()

        async def handle_page(request: Request) -> Response:
            try:
                check_origin(request)
                response = await handle(request)
            except Refused as refusal:
                reply = refusal.reply
                response = await problem_page(
                    request, reply.status, reply.body, retry_after=reply.headers.get("retry-after")
                )
            except Exception as error:  # noqa: BLE001 - every error is answered, and logged by the service's handlers
                answer = await respond(request, error)
                problem = orjson.loads(bytes(answer.body))
                response = await problem_page(
                    request, answer.status_code, problem, retry_after=answer.headers.get("retry-after")
                )
            remember_language(request, response)
            return response

        return handle_page


def remember_language(request: Request, response: Response) -> None:
    """Let the browser keep the language that the switch was set to."""
    choice = request.query_params.get(PARAMETER)
    if choice in LANGUAGES:
        response.set_cookie(
            COOKIE,
            choice,
            max_age=YEAR,
            path=link("/"),
            secure=is_encrypted(request),
            httponly=True,
            samesite="lax",
        )

"""Pages from templates: written in a thread, so that requests that are being answered need not wait for them."""

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from api.console import assets, plots
from api.console.language import LANGUAGES, PARAMETER, Words, example_of, language_of, seconds_between
from api.console.session import end_session, read_session, viewer_of
from api.http.prefix import link, route_path
from api.http.responses import request_id_of
from shared.csv.uploads.workbook import NOT_COMPUTED
from shared.version import VERSION

if TYPE_CHECKING:
    from jinja2 import Environment

_WRITING = CapacityLimiter(2)
SIGN_IN = "/console/sign-in"
_CHANGES = (
    "promote",
    "rollback",
    "cancel",
    "retry",
    "change",
    "outcome",
    "explain",
)  # last parts of paths that only take forms
_KEY_CHANGES = ("rotate", "revoke")
LIVE = "live"  # the id of what is renewed by itself
_GONE = (401, 403, 404, 410)  # answers to such a renewal after which there is nothing more to come


@cache
def environment() -> "Environment":
    """Return the templates; everything that they write is escaped, and a name that they do not have is an error."""
    # Imported here: a process that shows no page does without the library.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("api.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.globals.update(
        link=link,
        static=assets.address,
        written=example_of,
        seconds_between=seconds_between,
        plots=plots,
        NOT_COMPUTED=NOT_COMPUTED,
    )
    return made


async def page(
    request: Request, template: str, status: int = 200, headers: Mapping[str, str] | None = None, /, **values: object
) -> Response:
    """Return a page in the reader's language, with the values that its template needs."""
    language = language_of(request)
    words = Words(language)
    place = route_path(request.scope)
    address = _readable(place) if request.method == "POST" else place
    query = [(name, value) for name, value in request.query_params.multi_items() if name != PARAMETER]
    around = {
        "t": words,
        "viewer": viewer_of(request),
        "address": address,
        "section": place.removeprefix("/console").strip("/").partition("/")[0] if place != "/" else "home",
        "languages": [(other, link(address) + "?" + urlencode([*query, (PARAMETER, other)])) for other in LANGUAGES],
        "request_id": request_id_of(request),
        "version": VERSION,
    }
    return Response(await render(template, **(around | values)), status, headers, media_type="text/html")


async def render(template: str, /, **values: object) -> str:
    """Return the text of a template with its values."""
    return await to_thread.run_sync(lambda: environment().get_template(template).render(values), limiter=_WRITING)


def _readable(place: str) -> str:
    """Return the page that shows what a form at this path is about: to speak another language, or to try again."""
    above, _, last = place.rpartition("/")
    if last in _KEY_CHANGES:
        return "/console/keys"
    if place == "/console/train/again":
        return above
    return {"check": f"{above}/upload", "sign-out": SIGN_IN}.get(last, above if last in _CHANGES else place)


def _place_of(request: Request) -> str:
    """Return the page that a reader comes back to after signing in: with its filter, and where a form was sent from."""
    place = route_path(request.scope)
    query = request.url.query
    if request.method == "POST":
        place = _readable(place)
    return f"{place}?{query}" if query else place


def see_other(path: str, **query: object) -> Response:
    """Lead the browser to another page, which it asks for by GET."""
    values = {name: value for name, value in query.items() if value is not None}
    return RedirectResponse(link(path) + ("?" + urlencode(values) if values else ""), 303)


def lead_on(request: Request, path: str) -> Response:
    """Lead the browser to another page, also from a script, which would put it into the place of its own part."""
    if "hx-request" in request.headers:
        return Response(status_code=200, headers={"HX-Redirect": link(path)})
    return see_other(path)


async def problem_page(request: Request, status: int, problem: dict[str, Any], *, retry_after: str | None) -> Response:
    """Return the page for an answer that is no success: what happened, and what to do.

    Who has no valid key is led to the page where one signs in. Where a script asked for a part of a page, the page
    stays as it is, with what was filled in, and a notice on it says the same.
    """
    is_part = "hx-request" in request.headers
    is_renewed = request.headers.get("hx-target") == LIVE
    if is_part and is_renewed and status in _GONE:
        return Response(status_code=200, headers={"HX-Refresh": "true"})  # nothing is left to renew: the page says why
    session = read_session(request)
    reason = "ended" if session.has_ended else "refused" if session.key else None
    place = _place_of(request)
    if status == 401 and not is_part:
        response = see_other(SIGN_IN, next=place if request.method == "GET" or reason else None, reason=reason)
        if reason is not None:
            end_session(request, response)
        return response
    kind = f"problem.title_{status}"
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    if is_part:
        shown = "innerHTML" if is_renewed else "innerHTML show:top"  # nobody is led away from what they read
        headers |= {"HX-Retarget": "#notice", "HX-Reselect": "#problem", "HX-Reswap": shown}
    return await page(
        request,
        "part_problem.html" if is_part else "problem.html",
        status,
        headers,
        problem=problem,
        status=status,
        retry_after=retry_after,
        is_renewed=is_renewed,
        reason=reason,
        sign_in=link(SIGN_IN) + "?" + urlencode({"next": place, "reason": reason or ""}),
        is_filtered=request.method == "GET" and bool(request.query_params),
        kind=kind if Words("en").has(kind) else "problem.title_other",
    )

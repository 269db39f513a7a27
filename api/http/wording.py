"""Names of the answer's fields: those of the model's card, or the native ones when Accept asks for them."""

from starlette.requests import Request

from api.http.conditional import parse_accept
from shared.cards.card import Card
from shared.cards.response import Refusal, Response

NATIVE = "application/vnd.guichet+json"  # in Accept: the caller knows the service's own words, whatever the card says


def response_names(request: Request, card: Card) -> Response | None:
    """Return the names of the answer's fields for this caller; None: the native ones."""
    return None if card.response is None or _is_native(request) else card.response


def remember_error_format(request: Request, card: Card) -> None:
    """Remember this card's error format for the rest of the request; forget an earlier one."""
    request.scope["refusal"] = None if card.refusal is None or _is_native(request) else card.refusal


def error_format(request: Request) -> Refusal | None:
    """Return the error format of the request's card, None for the native one."""
    refusal: Refusal | None = request.scope.get("refusal")
    return refusal


def _is_native(request: Request) -> bool:
    """Return whether Accept names the service's own field names; `q=0` refuses them."""
    return parse_accept(request.headers.get("accept", "")).get(NATIVE, 0.0) > 0

"""Names of the answer's fields: those of the model's card, or the native ones when Accept asks for them."""

from starlette.requests import Request

from api.http.conditional import parse_accept
from shared.cards.card import Card
from shared.cards.response import Refusal, Response

NATIVE = "application/vnd.guichet+json"  # in Accept: the caller knows the service's own words, whatever the card says


def response_names(request: Request, card: Card) -> Response | None:
    """Return the names that the fields of an answer have for this caller; None: the service's own."""
    return None if card.response is None or _is_native(request) else card.response


def remember_error_format(request: Request, card: Card) -> None:
    """Remember how this card refuses rows, for the error that may follow; what was remembered before is forgotten."""
    request.scope["refusal"] = None if card.refusal is None or _is_native(request) else card.refusal


def error_format(request: Request) -> Refusal | None:
    """Return how the card that the request means refuses rows, where it says so."""
    refusal: Refusal | None = request.scope.get("refusal")
    return refusal


def _is_native(request: Request) -> bool:
    """Tell whether Accept names the service's own words; with `q=0` it says that they are not wanted."""
    return parse_accept(request.headers.get("accept", "")).get(NATIVE, 0.0) > 0

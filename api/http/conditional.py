"""Conditions and ranges of a request: If-None-Match, Range and If-Range, Accept (RFC 9110, 12 to 14)."""

import re
from collections.abc import Sequence

_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.IGNORECASE)
_QUALITY = re.compile(r"(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?)")


def etag_matches(header: str | None, etag: str) -> bool:
    """Compare weakly, as If-None-Match does (RFC 9110, 13.1.2)."""
    if header is None:
        return False
    tags = [part.strip().removeprefix("W/") for part in header.split(",")]
    return tags == ["*"] or etag in tags


def parse_range(range_header: str | None, if_range: str | None, etag: str) -> tuple[int | None, int | None] | None:
    """Return the first and last byte of the requested range (None: open); None for the whole file.

    (None, n) means the last n bytes. A header with several ranges, with another unit, or for another state of the file,
    requests the whole file.
    """
    if range_header is None or (if_range is not None and if_range.strip() != etag):
        return None
    match = _RANGE.fullmatch(range_header)
    if match is None or match[1] == match[2] == "":
        return None
    first, last = (int(digits) if digits else None for digits in match.groups())
    if first is not None and last is not None and last < first:
        return None
    return first, last


def resolve_range(bounds: tuple[int | None, int | None], size: int) -> tuple[int, int] | None:
    """Return start and stop (exclusive) of a range in a file of this size; None for a range outside it."""
    first, last = bounds
    if first is None:
        start, stop = max(size - (last or 0), 0), size
    else:
        start, stop = first, size if last is None else min(last + 1, size)
    return (start, stop) if start < stop else None


def preferred_type(accept: str | None, offers: Sequence[str]) -> str | None:
    """Return the media type that a caller likes best, the first of those liked equally; None if they take none."""
    if accept is None or not accept.strip():
        return offers[0]
    qualities_by_range = parse_accept(accept)
    qualities = [_quality_of(qualities_by_range, offer) for offer in offers]
    return offers[qualities.index(max(qualities))] if max(qualities) > 0 else None


def parse_accept(accept: str) -> dict[str, float]:
    """Return the media types and ranges that an Accept header names, in lower case, each with its quality."""
    qualities_by_range: dict[str, float] = {}
    for part in accept.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                quality = float(value) if _QUALITY.fullmatch(value.strip()) else 0.0
        qualities_by_range[name] = quality
    return qualities_by_range


def _quality_of(qualities_by_range: dict[str, float], offer: str) -> float:
    # The most specific part that names a type decides, e.g. `text/csv;q=0, */*` refuses CSV.
    kind = offer.partition("/")[0]
    return next((qualities_by_range[name] for name in (offer, f"{kind}/*", "*/*") if name in qualities_by_range), 0.0)

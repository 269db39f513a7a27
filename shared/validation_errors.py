"""Pydantic's errors in words that help to correct a document or a setting; they never repeat values."""

from pydantic import ValidationError

_WORDS = (
    ("Value error, ", ""),
    ("Input should ", "must "),
    ("String should ", "must "),
    ("Field required", "is missing"),
    ("Extra inputs are not permitted", "is not known: remove it, or correct its name"),
)


def list_faults(error: ValidationError) -> list[tuple[str, str]]:
    """Return each fault as its place, dotted and empty for the whole, and its reason."""
    faults = error.errors(include_input=False, include_url=False, include_context=False)
    return [(".".join(map(str, fault["loc"])), _reword(fault["msg"])) for fault in faults]


def first_faults(error: ValidationError, limit: int = 3) -> str:
    """Return the first faults as a part of a sentence."""
    faults = list_faults(error)
    sentences = [f"{place}: {reason}" if place else reason for place, reason in faults[:limit]]
    more = len(faults) - limit
    return "; ".join(sentences) + (f"; and {more} more" if more > 0 else "")


def _reword(reason: str) -> str:
    for theirs, ours in _WORDS:
        if reason.startswith(theirs):
            return ours + reason.removeprefix(theirs)
    return reason

"""The filter of the list of jobs: `status:failed model:credit since:1h` in its box, and the same in its address."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from shared.faults import closest
from shared.tables import JobState

NAMES = ("status", "model", "since", "until")
AGES = ("15m", "1h", "24h", "7d")  # what the box offers for `since`
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_AGE = re.compile(r"(\d{1,6})([smhdw])")
_JOB = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_STATES = tuple(state.value for state in JobState)


class Unreadable(Exception):
    """A part of the box says nothing that can be filtered by; `near` is what may be meant."""

    def __init__(self, part: str, near: str | None) -> None:
        super().__init__(part)
        self.part = part
        self.near = near


def read_box(text: str) -> dict[str, str]:
    """Return what the box says, by name; `job` for a text that is the id of one. Raise Unreadable for what it cannot.

    A state may stand alone: `failed` is `status:failed`.
    """
    chosen: dict[str, str] = {}
    for part in text.split():
        name, colon, value = part.partition(":")
        name = name.lower()
        if colon and name in NAMES and value:
            chosen[name] = value.lower() if name == "status" else value
        elif not colon and name in _STATES:
            chosen["status"] = name
        elif _JOB.fullmatch(part):
            return {"job": part.lower()}
        else:
            near = closest(name, [*(f"{each}:" for each in NAMES), *_STATES], cutoff=0.6)
            raise Unreadable(part, near)
    return chosen


def write_box(chosen: Mapping[str, str]) -> str:
    """Return the text of the box that says the same as an address."""
    return " ".join(f"{name}:{chosen[name]}" for name in NAMES if chosen.get(name))


def address_query(chosen: Mapping[str, str], **more: str | None) -> str:
    """Return the query of the list's address, with its question mark; empty without a filter."""
    values = {name: chosen[name] for name in NAMES if chosen.get(name)} | {
        name: value for name, value in more.items() if value
    }
    return "?" + urlencode(values, safe=":@") if values else ""


def parameters(chosen: Mapping[str, str], *, now: datetime) -> dict[str, str]:
    """Return the filter as the JSON routes take it: a length of time becomes the moment so long ago."""
    names = {"since": "from", "until": "to"}
    return {names.get(name, name): _moment(name, chosen[name], now) for name in NAMES if chosen.get(name)}


def _moment(name: str, value: str, now: datetime) -> str:
    match = _AGE.fullmatch(value) if name in ("since", "until") else None
    if match is None:
        return value  # a date or a time, or what the route refuses
    try:
        moment = now.astimezone(UTC) - timedelta(seconds=int(match[1]) * _UNITS[match[2]])
    except OverflowError:
        moment = datetime.min.replace(tzinfo=UTC)
    return moment.isoformat().replace("+00:00", "Z")


def completions(models: list[str]) -> list[str]:
    """Return what the box offers."""
    return [
        *(f"status:{state}" for state in _STATES),
        *(f"model:{model}" for model in models),
        *(f"since:{age}" for age in AGES),
    ]

"""Comparing two versions on the same rows: replays, and challengers, for keys with the scope `admin`. Flows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self
from urllib.parse import quote

from guichet.records import Body
from guichet.transport.exchange import exchange
from guichet.transport.wire import Flow, Request, check, read


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two versions on the same rows: the stored decisions, and the scores of `model_version`; `body` has everything."""

    model: str
    model_version: int
    pairs: int
    refused: int  # rows that the version does not take
    agreement: float | None  # share of the pairs; None for a regression, which decides nothing
    flips: int | None
    flips_up: int | None  # of two classes: from the negative to the positive one
    flips_down: int | None
    p_value: float | None  # McNemar's exact test of flips up and down
    score_shift: float | None  # mean of the second score less the first
    notes: list[str]
    body: Body = field(repr=False, compare=False)

    @classmethod
    def read(cls, body: Body) -> Self:
        """Read it from JSON."""
        flips = body.get("flips") or {}
        return cls(
            model=str(body["model"]),
            model_version=int(body["model_version"]),
            pairs=int(body["pairs"]),
            refused=int(body["refused"]),
            agreement=(body.get("agreement") or {}).get("value"),
            flips=flips.get("count"),
            flips_up=flips.get("up"),
            flips_down=flips.get("down"),
            p_value=flips.get("p_value"),
            score_shift=(body.get("score_shift") or {}).get("value"),
            notes=[str(note) for note in body["notes"]],
            body=body,
        )


def replay_body(
    reference: str,
    *,
    start: datetime | str | None,
    end: datetime | str | None,
    decided_by: int | None,
    features: Mapping[str, Any] | None,
    cost_fp: float | None,
    cost_fn: float | None,
) -> dict[str, Any]:
    """Return the body of a request for a replay; a time without an offset is local."""
    chosen: dict[str, Any] = {} if decided_by is None else {"version": decided_by}
    chosen |= {"features": dict(features)} if features else {}
    options = {"from": _time(start), "to": _time(end), "filter": chosen or None, "cost_fp": cost_fp, "cost_fn": cost_fn}
    return {"model": reference} | {name: value for name, value in options.items() if value is not None}


def find_comparison(
    name: str,
    *,
    start: datetime | str | None,
    end: datetime | str | None,
    decided_by: int | None,
    cost_fp: float | None,
    cost_fn: float | None,
    retries: int,
) -> Flow[Comparison]:
    """Read the comparison of a challenger with the stored decisions; a time without an offset is local."""
    options = {"from": _time(start), "to": _time(end), "decided_by": decided_by, "cost_fp": cost_fp, "cost_fn": cost_fn}
    query = {option: str(value) for option, value in options.items() if value is not None}
    answer = yield from exchange(Request("GET", f"/models/{quote(name, safe='')}/comparison", query), retries)
    return read(check(answer), Comparison.read)


def _time(value: datetime | str | None) -> str | None:
    return value.astimezone().isoformat() if isinstance(value, datetime) else value

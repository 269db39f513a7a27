"""How a model answers its clients, in its card: the names of the answer's fields, and what a refusal looks like.

A client that was written for another service keeps its words, and no code is written for it.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

SCORE_SOURCES = ("prediction", "label", "probability", "threshold", "probabilities")
JOB_SOURCES = ("job_id", "request_id", "model", "model_version", "latency_ms")
BATCH_SOURCES = ("n_rows", "items", "has_failures", *JOB_SOURCES)

Constant = str | int | float | bool


class ResponseField(BaseModel):
    """One field of an answer: what it holds, or a constant. A plain string stands for a source alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str | None = None  # of SCORE_SOURCES or JOB_SOURCES; of BATCH_SOURCES around a batch
    label: str | None = None  # with the source `probability`: of this label, not of the predicted or positive one
    digits: int | None = Field(default=None, ge=0, le=15)  # decimals that a number is rounded to
    value: Constant | None = None  # always the same, instead of a source

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return {"source": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _is_consistent(self) -> "ResponseField":
        if (self.source is None) == (self.value is None):
            raise ValueError("give a source, or a constant value (not null)")
        if isinstance(self.value, float) and not math.isfinite(self.value):
            raise ValueError("a constant is a finite number, text, true or false")
        if self.label is not None and self.source != "probability":
            raise ValueError("label belongs to the source probability")
        if self.digits is not None and self.source not in ("prediction", "probability", "threshold", "latency_ms"):
            raise ValueError("digits belong to a source that is a number")
        return self


class Response(BaseModel):
    """The fields of an answer by name, instead of those of HTTP's default; none given: the default ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fields: dict[str, ResponseField] = {}  # of one row's answer, and of each item of a batch
    batch: dict[str, ResponseField] = {}  # around the items of a batch

    @model_validator(mode="after")
    def _is_consistent(self) -> "Response":
        _check_sources(self.fields, (*SCORE_SOURCES, *JOB_SOURCES))
        _check_sources(self.batch, BATCH_SOURCES)
        if self.batch and all(field.source != "items" for field in self.batch.values()):
            raise ValueError("the fields around a batch lack its items: give one the source items")
        return self

    def check_fit(self, task: str, labels: Mapping[str, str]) -> None:
        """Raise ValueError where a field holds what a model of this task and these labels does not give."""
        for name, field in self.fields.items():
            if task == "regression" and field.source in SCORE_SOURCES[1:]:
                raise ValueError(f"the response field {name} holds the {field.source}, which regression does not give")
            if field.source == "threshold" and task != "binary":
                raise ValueError(f"the response field {name} holds the threshold, which only binary models have")
            if field.label is not None and field.label not in labels.values():
                known = ", ".join(labels.values()) or "none"
                raise ValueError(f"the response field {name} means a label that is not one of: {known}")


class Refusal(BaseModel):
    """How a row that does not fit the card is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Literal[400, 422] = 422
    # problem: RFC 9457. detail: {"detail": sentence}. fastapi: {"detail": [{type, loc, msg}]}, as FastAPI's own.
    body: Literal["problem", "detail", "fastapi"] = "problem"


def rename(
    response: Response | None, sources: Sequence[str], *, others: Collection[str], positive: str | None = None
) -> list[str]:
    """Return the names that these sources of a score have in a table: the response's own where it gives one.

    A source without a name of its own keeps it, or becomes `..._raw` where another one has taken it, in any case of
    letters; `others` are the table's other columns, whose names are not free. The probability of the `positive` label
    is the probability. Values are never rounded there.
    """
    named: dict[str, str] = {}
    for name, field in (response.fields if response is not None else {}).items():
        is_plain = field.label in (None, positive)
        if field.source is not None and field.source in sources and is_plain and name not in others:
            named.setdefault(field.source, name)
    taken = {name.casefold() for name in named.values()}
    return [named.get(source) or (f"{source}_raw" if source in taken else source) for source in sources]


def _check_sources(fields: Mapping[str, ResponseField], known: tuple[str, ...]) -> None:
    for name, field in fields.items():
        if not name:
            raise ValueError("a response field has no name")
        if field.source is not None and field.source not in known:
            raise ValueError(f"the source of {name} is not one of {', '.join(known)}")


def fill(fields: Mapping[str, ResponseField], sources: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an answer, filled from what the service knows, by source; `probabilities` is by label."""
    return {name: _content(field, sources) for name, field in fields.items()}


def _content(field: ResponseField, sources: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any JSON value
    if field.source is None:
        return field.value
    if field.label is not None:
        return _rounded((sources["probabilities"] or {}).get(field.label), field.digits)
    return _rounded(sources[field.source], field.digits)


def _rounded(content: Any, digits: int | None) -> Any:  # noqa: ANN401 - any JSON value
    return round(content, digits) if digits is not None and isinstance(content, float) else content

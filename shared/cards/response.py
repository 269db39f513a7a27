"""The response section of a card: the names of the answer's fields, and the form of a refusal.

A client that was written for another service keeps its words, and no code is written for it.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, field_validator, model_validator

SCORE_SOURCES = ("prediction", "label", "probability", "confidence", "threshold", "probabilities")
JOB_SOURCES = ("job_id", "request_id", "model", "model_version", "latency_ms")
BATCH_SOURCES = ("n_rows", "items", "has_failures", *JOB_SOURCES)

NUMBERS = ("prediction", "probability", "confidence", "threshold", "latency_ms")
LARGEST_DIGITS = 15

Constant = str | int | float | bool


class Band(BaseModel):
    """What a number is called from a limit on: `{"min": 0.7, "value": "high"}`; one band has no limit, the lowest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: FiniteFloat | None = None
    exclusive_min: FiniteFloat | None = None
    value: Constant

    @model_validator(mode="after")
    def _is_consistent(self) -> "Band":
        if self.min is not None and self.exclusive_min is not None:
            raise ValueError("a band begins at min, or above exclusive_min: give one of them")
        return self

    @property
    def start(self) -> tuple[float, bool]:
        """Return the lower end of the band, and whether the band excludes it."""
        if self.exclusive_min is not None:
            return self.exclusive_min, True
        return (-math.inf if self.min is None else self.min), False

    def holds(self, number: float) -> bool:
        """Return whether a number is in the band, or above it."""
        start, behind = self.start
        return number > start if behind else number >= start


class ResponseField(BaseModel):
    """One field of an answer: a source or a constant. A plain string is the name of a source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str | None = None  # of SCORE_SOURCES or JOB_SOURCES; of BATCH_SOURCES around a batch
    label: str | None = None  # with the source `probability`: of this label, not of the predicted or positive one
    bands: list[Band] | None = Field(default=None, min_length=2)  # what the number is called, instead of the number
    times: FiniteFloat | None = None  # what the number is multiplied by: 100 makes a percentage of a probability
    digits: int | None = Field(default=None, ge=0, le=LARGEST_DIGITS)  # decimals that a number is rounded to
    whole: bool = False  # the number is rounded and written as an integer, 12 and not 12.0
    text: str | None = Field(default=None, max_length=500)  # the number's or word's place in a text, at {}: "{} %"
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
        numeric = {
            "digits": self.digits is not None,
            "times": self.times is not None,
            "bands": self.bands is not None,
            "whole": self.whole,
        }
        for key, is_given in numeric.items():
            if is_given and self.source not in NUMBERS:
                raise ValueError(f"{key} {'belong' if key[-1] == 's' else 'belongs'} to a source that is a number")
        if self.bands is not None and any(key != "bands" and is_used for key, is_used in numeric.items()):
            raise ValueError("bands stand for the number itself: leave out times, digits and whole")
        if self.whole and self.digits is not None:
            raise ValueError("a whole number has no digits: leave them out")
        if self.text is not None and (self.text.count("{}") != 1 or self.text.count("{") + self.text.count("}") != 2):
            raise ValueError('text has one place for the number or word, {}, as in "{} %"')
        if self.text is not None and self.source not in (*NUMBERS, "label"):
            raise ValueError("text belongs to a source that is a number or a label")
        return self

    @field_validator("bands")
    @classmethod
    def _from_the_top(cls, bands: list[Band] | None) -> list[Band] | None:
        """Order bands from the highest to the lowest, which has no limit."""
        if bands is None:
            return None
        bands = sorted(bands, key=lambda band: band.start, reverse=True)
        starts = [band.start for band in bands]
        if len(set(starts)) < len(starts) or starts[-1] != (-math.inf, False):
            raise ValueError("each band begins at another number, and one of them, the lowest, has neither limit")
        return bands

    @property
    def is_shaped(self) -> bool:
        """Return whether the field differs from its source, apart from rounding."""
        return self.bands is not None or self.times is not None or self.whole or self.text is not None

    def shape(self, content: Any) -> Any:  # noqa: ANN401 - any JSON value
        """Return the field's value for this value of its source; None stays None."""
        if content is None:
            return None
        if self.bands is not None:
            content = next(band.value for band in self.bands if band.holds(content))
        if self.times is not None:
            content = content * self.times
            if not math.isfinite(content):
                return None
        if self.whole:
            content = round(content)
        elif self.digits is not None and isinstance(content, float):
            content = round(content, self.digits)
        elif self.times is not None:
            content = float(f"{content:.15g}")  # 0.29 * 100 is 28.999999999999996
        if self.text is None:
            return content
        fixed = self.digits is not None and isinstance(content, float)
        return self.text.replace("{}", f"{content:.{self.digits}f}" if fixed else str(content))


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
        """Raise ValueError for a field with a source that a model of this task and these labels does not have."""
        for name, field in self.fields.items():
            if task == "regression" and field.source in SCORE_SOURCES[1:]:
                raise ValueError(f"the response field {name} holds the {field.source}, which regression does not give")
            if task == "multiclass" and field.source == "prediction" and (field.bands or field.times or field.whole):
                raise ValueError(f"the response field {name} computes with the prediction, which is a class here")
            if field.source == "threshold" and task != "binary":
                raise ValueError(f"the response field {name} holds the threshold, which only binary models have")
            if field.label is not None and field.label not in labels.values():
                labels_there = ", ".join(labels.values()) or "none"
                raise ValueError(f"the response field {name} names a label that is not one of: {labels_there}")


class Refusal(BaseModel):
    """How a row that does not fit the card is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Literal[400, 422] = 422
    # problem: RFC 9457. detail: {"detail": all faults in a sentence}. message: {"detail": the first fault alone}.
    # fastapi: {"detail": [{type, loc, msg}]}, as FastAPI's own.
    body: Literal["problem", "detail", "message", "fastapi"] = "problem"


def rename(
    response: Response | None, sources: Sequence[str], *, others: Collection[str], positive: str | None = None
) -> list[str]:
    """Return the names of these sources of a score in a table: the response's own names, where it has them.

    A source without a name of its own keeps its name, or becomes `..._raw` if another column has it already, in any
    case of letters; `others` are the table's other columns, whose names are in use.
    """
    named: dict[str, str] = {}
    for name, field in (response.fields if response is not None else {}).items():
        is_plain = field.label in (None, positive) and not field.is_shaped
        if field.source is not None and field.source in sources and is_plain and name not in others:
            named.setdefault(field.source, name)
    used = {name.casefold() for name in [*named.values(), *others]}
    return [named.get(source) or (f"{source}_raw" if source in used else source) for source in sources]


def shaped_fields(response: Response | None, *, others: Collection[str]) -> dict[str, ResponseField]:
    """Return the additional fields of a table: named bands, percentages and texts of numbers.

    They represent the row's score; `others` are the table's other columns, whose names are in use.
    """
    used = {name.casefold() for name in others}
    return {
        name: field
        for name, field in (response.fields if response is not None else {}).items()
        if field.is_shaped and field.source in SCORE_SOURCES and name.casefold() not in used
    }


def _check_sources(fields: Mapping[str, ResponseField], sources: tuple[str, ...]) -> None:
    for name, field in fields.items():
        if not name:
            raise ValueError("a response field has no name")
        if field.source is not None and field.source not in sources:
            raise ValueError(f"the source of {name} is not one of {', '.join(sources)}")


def fill(fields: Mapping[str, ResponseField], sources: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an answer, filled from the sources; `probabilities` is by label."""
    return {name: _content(field, sources) for name, field in fields.items()}


def _content(field: ResponseField, sources: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any JSON value
    if field.source is None:
        return field.value
    if field.label is not None:
        return field.shape((sources["probabilities"] or {}).get(field.label))
    return field.shape(sources[field.source])

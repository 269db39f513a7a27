"""One feature of a model: its description in the card, and the check of a value against it."""

import math
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PlainSerializer, field_validator, model_validator

from shared.faults import Fault, pointer

LARGEST_INTEGER = 2**53  # beyond it a float64 no longer tells neighbours apart, and neither does the model
SHOWN_CATEGORIES = 20  # a message that lists more is not read

# What pandas reads as missing in a column of text, unless it is told otherwise (pandas.read_csv, na_values).
_WORDS = "#N/A,#N/A N/A,#NA,-1.#IND,-1.#QNAN,-NaN,-nan,1.#IND,1.#QNAN,<NA>,N/A,NA,NULL,NaN,None,n/a,nan,null"
MISSING_WORDS = frozenset(_WORDS.split(","))

FeatureType = Literal["integer", "number", "string", "boolean"]
Category = str | int | float | bool
FaultCode = Literal["type", "range", "length", "category", "missing", "null", "derived"]
FAULT_CODES: tuple[FaultCode, ...] = get_args(FaultCode)
PHRASES: dict[str, str] = {
    "integer": "an integer",
    "number": "a finite number",
    "string": "text",
    "boolean": "true or false",
}


def plain(value: float) -> int | float:
    """Return an integral float as an int, so that a bound is written 16 and not 16.0."""
    return int(value) if value.is_integer() else value


Bound = Annotated[FiniteFloat, PlainSerializer(plain, return_type=int | float)]


class Feature(BaseModel):
    """What a model expects of one input; inconsistent descriptions are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]+$")
    type: FeatureType
    required: bool = True  # false: it may be absent, and is then null
    nullable: bool = False  # true: null is a value that the model was trained with
    min: Bound | None = None
    max: Bound | None = None
    exclusive_min: Bound | None = None
    exclusive_max: Bound | None = None
    min_length: int | None = Field(default=None, ge=0)  # characters
    max_length: int | None = Field(default=None, ge=0)
    categories: list[Category] | None = Field(default=None, min_length=1)
    unknown: Literal["accept", "refuse"] = "accept"  # a value outside the categories
    default: Category | None = None  # what an absent feature is
    percent: Literal["points", "fraction"] | None = None  # text such as "15 %" is taken, as 15 or as 0.15
    derived: str | None = Field(default=None, min_length=1, max_length=500)  # a formula (shared/cards/formulas.py)
    message: dict[FaultCode, str] | None = None  # what callers read instead of our words, by what is wrong
    description: str | None = None
    example: Any = None

    @field_validator("message", mode="before")
    @classmethod
    def _of_every_fault(cls, value: object) -> object:
        """Accept a plain text as the message of every fault."""
        return dict.fromkeys(FAULT_CODES, value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _is_consistent(self) -> "Feature":
        bounds = (self.min, self.max, self.exclusive_min, self.exclusive_max)
        if self.type not in ("integer", "number") and any(bound is not None for bound in bounds):
            raise ValueError(f"{self.name}: min and max are for integers and numbers, not for {self.type}")
        if self.type != "string" and (self.min_length is not None or self.max_length is not None):
            raise ValueError(f"{self.name}: min_length and max_length are for strings, not for {self.type}")
        if self.unknown == "refuse" and self.categories is None:
            raise ValueError(f"{self.name}: unknown is 'refuse' but no categories are given; list them")
        if not self._leaves_room():
            raise ValueError(f"{self.name}: no value lies within these bounds; correct min and max")
        for category in self.categories or ():
            if not _has_type(self.type, category):
                raise ValueError(f"{self.name}: every category must be {PHRASES[self.type]}")
        if self.percent is not None and self.type not in ("integer", "number"):
            raise ValueError(f"{self.name}: percent is for integers and numbers, not for {self.type}")
        if self.derived is not None and self.default is not None:
            raise ValueError(f"{self.name}: it is derived, so that it is never absent; leave the default out")
        if self.default is not None and (fault := read_value(self, self.default)[1]) is not None:
            raise ValueError(f"{self.name}: the default {fault.message}")
        if self.example is not None and (fault := read_value(self, self.example)[1]) is not None:
            raise ValueError(f"{self.name}: the example {fault.message}")
        return self

    def _leaves_room(self) -> bool:
        if (self.min_length or 0) > (math.inf if self.max_length is None else self.max_length):
            return False
        if self.type == "integer":
            low, high = integer_bounds(self)
            return low <= high
        low_open, high_open = limit_or(self.exclusive_min, -math.inf), limit_or(self.exclusive_max, math.inf)
        low_shut, high_shut = limit_or(self.min, -math.inf), limit_or(self.max, math.inf)
        strict = low_open >= low_shut or high_open <= high_shut
        low_end, high_end = max(low_open, low_shut), min(high_open, high_shut)
        return low_end < high_end or (low_end == high_end and not strict)


def missing_words(feature: Feature) -> frozenset[str]:
    """Return the words that stand for null in a text cell of a file; in JSON, which has null, they are words.

    They do where the model was trained with nulls and with categories, none of which is called so.
    """
    if feature.type != "string" or feature.categories is None or not (feature.nullable or not feature.required):
        return frozenset()
    return MISSING_WORDS.difference(value for value in feature.categories if isinstance(value, str))


def limit_or(value: float | None, default: float) -> float:
    """Return a bound, or infinity where the feature has none."""
    return default if value is None else value


def _has_type(kind: FeatureType, value: object) -> bool:
    """Return whether a value has this JSON type; a boolean is never a number, 35.0 is an integer."""
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if kind == "number":
        return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    return kind == "string" and isinstance(value, str)


def integer_bounds(feature: Feature) -> tuple[int, int]:
    """Return the smallest and the largest integer that an integer feature takes."""
    low, high = -LARGEST_INTEGER, LARGEST_INTEGER
    if feature.min is not None:
        low = max(low, math.ceil(feature.min))
    if feature.exclusive_min is not None:
        low = max(low, math.floor(feature.exclusive_min) + 1)
    if feature.max is not None:
        high = min(high, math.floor(feature.max))
    if feature.exclusive_max is not None:
        high = min(high, math.ceil(feature.exclusive_max) - 1)
    return low, high


def expected(feature: Feature) -> str:
    """Describe the values of a feature as the end of a sentence: `an integer between 16 and 70`."""
    phrase = PHRASES[feature.type]
    if feature.type in ("integer", "number"):
        return " ".join(part for part in (phrase, _range_phrase(feature)) if part)
    if feature.type == "string":
        return " ".join(part for part in (phrase, _length_phrase(feature)) if part)
    return phrase


def _range_phrase(feature: Feature) -> str:
    if (
        feature.min is not None
        and feature.max is not None
        and feature.exclusive_min is None
        and feature.exclusive_max is None
    ):
        return f"between {plain(feature.min)} and {plain(feature.max)}"
    limits = (
        ("of at least", feature.min),
        ("greater than", feature.exclusive_min),
        ("of at most", feature.max),
        ("less than", feature.exclusive_max),
    )
    return " and ".join(f"{words} {plain(limit)}" for words, limit in limits if limit is not None)


def _length_phrase(feature: Feature) -> str:
    low, high = feature.min_length or 0, feature.max_length
    if low and high is not None:
        return f"of {low} to {high} characters" if low < high else f"of {low} characters"
    if high is not None:
        return f"of at most {high} characters"
    return f"of at least {low} characters" if low else ""


def read_value(feature: Feature, value: object) -> tuple[Any, Fault | None]:
    """Return the canonical value and None, or None and the fault; the value itself is never in the message.

    Integers come back as int, numbers as float. `value` is not null: the row decides about null.
    """
    where = pointer(feature.name)
    if not _has_type(feature.type, value):
        return None, Fault(where, "type", f"must be {expected(feature)}")
    if isinstance(value, str):
        return _read_text(feature, value, where)
    if feature.type in ("integer", "number") and isinstance(value, int | float):
        return _read_number(feature, value, where)
    return _read_category(feature, value, where)


def _read_text(feature: Feature, value: str, where: str) -> tuple[Any, Fault | None]:
    if "\x00" in value or not _is_unicode(value):  # PostgreSQL's jsonb refuses both
        return None, Fault(where, "type", "must be text without NUL characters or lone surrogates")
    if len(value) < (feature.min_length or 0):
        return None, Fault(where, "length", f"must be {expected(feature)}")
    if feature.max_length is not None and len(value) > feature.max_length:
        return None, Fault(where, "length", f"must be {expected(feature)}")
    return _read_category(feature, value, where)


def _is_unicode(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _read_number(feature: Feature, value: float, where: str) -> tuple[Any, Fault | None]:
    if feature.type == "integer":
        number: float = int(value)
        if not -LARGEST_INTEGER <= number <= LARGEST_INTEGER:
            limits = f"between {-LARGEST_INTEGER} and {LARGEST_INTEGER}"
            return None, Fault(where, "range", f"must be an integer {limits}")
        low, high = integer_bounds(feature)
        inside = low <= number <= high
    else:
        try:
            number = float(value)
        except OverflowError:
            return None, Fault(where, "range", "must be a number that a 64-bit float can hold")
        inside = (
            (feature.min is None or number >= feature.min)
            and (feature.max is None or number <= feature.max)
            and (feature.exclusive_min is None or number > feature.exclusive_min)
            and (feature.exclusive_max is None or number < feature.exclusive_max)
        )
    if not inside:
        return None, Fault(where, "range", f"must be {expected(feature)}")
    return _read_category(feature, number, where)


def _read_category(feature: Feature, value: object, where: str) -> tuple[Any, Fault | None]:
    categories = feature.categories
    if feature.unknown == "accept" or categories is None or value in categories:
        return value, None
    shown = ", ".join(_shown(category) for category in categories[:SHOWN_CATEGORIES])
    more = len(categories) - SHOWN_CATEGORIES
    rest = f" or one of {more} more, which the model's card lists" if more > 0 else ""
    return None, Fault(where, "category", f"must be one of {shown}{rest}")


def _shown(category: Category) -> str:
    if isinstance(category, bool):
        return "true" if category else "false"
    return f'"{category}"' if isinstance(category, str) else str(category)

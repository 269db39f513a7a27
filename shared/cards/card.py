"""The card (`model.json`): everything that the code needs to know about a model, beside its artefact."""

import math
import os
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from shared.cards.features import Feature as Feature
from shared.cards.features import integer_bounds, limit_or, plain, read_value
from shared.cards.formulas import compile_formulas
from shared.cards.response import Refusal, Response
from shared.cards.rules import parse_rule
from shared.errors import CardError
from shared.files import read_file
from shared.validation_errors import first_faults

Task = Literal["binary", "multiclass", "regression"]
DecidedBy = Literal["probability", "decision_function", "predict"]

OPTIONS = ("model", "version", "expires_in", "timeout")  # what a request may say beside its row


class Rule(BaseModel):
    """A relation between features that every row must keep, e.g. `age_debut_carriere < age`.

    A plain string is a rule without a message of its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    expression: str = Field(min_length=1, max_length=500)
    message: str | None = None  # what the caller reads when it is broken

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return {"expression": value} if isinstance(value, str) else value


class Views(BaseModel):
    """How the SQL views of a model are called; `python -m shared.registry views` makes them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: str | None = Field(default=None, min_length=1)  # what was asked
    predictions: str | None = Field(default=None, min_length=1)  # what was answered
    reference: str | None = Field(default=None, min_length=1)  # the reference data


class Card(BaseModel):
    """A model version in words: task, labels, features, rules and how strict its input is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")
    version: int = Field(ge=1)
    description: str = ""
    task: Task
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")  # of model.joblib, checked before it is unpickled
    labels: dict[str, str] = {}  # class as text -> label; empty: the class is its own label
    class_type: Literal["string"] | None = None  # classes that are text though written as numbers; None: as written
    # What the class follows from: the probability (binary: from the threshold on), decision_function (above 0, or the
    # highest), or the estimator's own `predict` beside them. None: as the estimator does, found out at registration.
    decided_by: DecidedBy | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None  # binary; of the probability 0.5, of a decision 0
    probability: Literal["sigmoid"] | None = None  # binary, no probabilities: the sigmoid of decision_function is one
    features: list[Feature] = Field(min_length=1)  # the model's own, in its order
    inputs: list[Feature] = []  # what callers send besides, for derived features and rules; the model takes none
    rules: list[Rule] = []
    missing: Literal["refuse", "null"] = "refuse"  # a required feature that is absent
    extra: Literal["refuse", "ignore"] = "refuse"  # features that the card does not name, and such keys beside the row
    text: Literal["refuse", "read"] = "refuse"  # text where a number or boolean is meant, such as "35" or "yes"
    input: Literal["wrapped", "flat"] = "wrapped"  # flat: the body of a request is the row itself
    wrapper: str = Field(default="features", min_length=1, max_length=100)  # the field of the body that holds the row
    batch_input: Literal["wrapped", "flat"] = "wrapped"  # flat: the body of a batch is the list of its rows
    batch_wrapper: str = Field(default="rows", min_length=1, max_length=100)  # the field that holds a batch's rows
    on_error: Literal["continue", "abort"] = "continue"  # abort: one bad row refuses its batch, unless it says else
    client: str = Field(default="", max_length=500)  # whose words these are: the service that they were made for
    response: Response | None = None  # other names for the fields of an answer
    refusal: Refusal | None = None  # another status or body for rows that do not fit
    invocations: Literal["predict", "predict_proba"] = "predict"  # what MLflow's clients are answered by default
    views: Views | None = None  # names that a client's own SQL asks for
    metrics: dict[str, FiniteFloat] = {}
    metrics_of: Literal["reference"] | None = None  # the reference rows gave them: in-sample, and so too good
    trained_at: datetime | None = None
    libraries: dict[str, str] = {}  # package -> version at training
    target: str | None = None
    notes: str = ""

    @model_validator(mode="before")
    @classmethod
    def _default_threshold(cls, value: object) -> object:
        if not isinstance(value, dict) or value.get("task") != "binary" or value.get("threshold") is not None:
            return value
        default = {"decision_function": 0.0, "predict": None}.get(str(value.get("decided_by")), 0.5)
        return {**value, "threshold": default}

    @model_validator(mode="after")
    def _is_consistent(self) -> "Card":
        names = [feature.name for feature in self.row_features]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"feature {name} is described twice; keep one")
        if self.task != "binary" and self.threshold is not None:
            raise ValueError(f"a threshold is for binary models, not for {self.task}; remove it")
        if self.decided_by == "predict" and self.threshold is not None:
            raise ValueError("the class is the model's own predict, so that a threshold decides nothing; remove it")
        if self.decided_by == "decision_function" and self.threshold:
            raise ValueError("decision_function decides, whose threshold is 0; remove the threshold")
        if self.probability is not None and self.task != "binary":
            raise ValueError(f"the sigmoid of a decision is for binary models, not for {self.task}; remove it")
        if self.task == "regression" and self.decided_by is not None:
            raise ValueError("regression decides nothing; remove decided_by")
        if self.task == "regression" and self.labels:
            raise ValueError("labels are for classifiers, not for regression; remove them")
        if self.task == "binary" and len(self.labels) not in (0, 2):
            raise ValueError("a binary model has two labels, one for each class")
        if len(set(self.labels.values())) < len(self.labels):
            raise ValueError("two classes have the same label; make the labels different")
        if self.wrapper in OPTIONS:
            raise ValueError(f"the wrapper {self.wrapper} is an option of every request; choose another name")
        if self.batch_wrapper in (*OPTIONS, "on_error"):
            raise ValueError(
                f"the batch wrapper {self.batch_wrapper} is an option of every request; choose another name"
            )
        for feature in self.inputs:
            if feature.derived is not None:
                raise ValueError(f"the input {feature.name} is derived; only features of the model are")
        if not self.sent_features:
            raise ValueError("every feature is derived; name what callers send among the inputs")
        if self.task == "regression" and self.invocations != "predict":
            raise ValueError("regression has no probabilities to answer invocations with; leave that out")
        if self.response is not None:
            self.response.check_fit(self.task, self.labels)
        for rule in self.rules:
            parse_rule(rule.expression, rule.message, self.row_features)
        compile_formulas(self.row_features)
        return self

    @property
    def row_features(self) -> list[Feature]:
        """Return all that a canonical row holds: the model's features, then what callers send besides."""
        return [*self.features, *self.inputs] if self.inputs else self.features

    @property
    def sent_features(self) -> list[Feature]:
        """Return the features that callers send: those of a row that are not derived."""
        return [feature for feature in self.row_features if feature.derived is None]

    @classmethod
    def load(cls, path: Path) -> "Card":
        """Read a card; raise CardError with the file, the fault and the remedy."""
        content = read_document(path, advice="`python -m shared.registry add` writes a card for a model")
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise CardError(f"{path} is not a valid card: {first_faults(error)}. Correct the file.") from None

    def dump(self, path: Path) -> None:
        """Write the card as indented UTF-8 JSON, whole or not at all."""
        text = self.model_dump_json(indent=2, exclude_none=True) + "\n"
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            draft.write_text(text, encoding="utf-8")
            draft.replace(path)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise CardError(f"{path} cannot be written ({error.strerror}): check the folder and its rights.") from error

    def example(self) -> dict[str, Any]:
        """Return one row as callers send it: each feature with its example, or with a value of its type and range.

        Made-up values respect each feature alone; only the card's own examples can keep its rules.
        """
        return {feature.name: _likely_example(feature) for feature in self.sent_features}

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema (2020-12) of one row; it cannot express rules between features."""
        absent = self.missing == "null"
        return {
            "type": "object",
            "title": f"{self.name}@{self.version}",
            "properties": {
                feature.name: _feature_schema(
                    feature, null=absent or feature.nullable or not feature.required, text=self.text == "read"
                )
                for feature in self.sent_features
            },
            "required": [
                feature.name
                for feature in self.sent_features
                if feature.required and feature.default is None and not absent
            ],
            "additionalProperties": self.extra == "ignore",
            "examples": [self.example()],
        }


def read_document(path: Path, *, advice: str) -> bytes:
    """Return the bytes of a JSON file without their mark; raise CardError, with `advice` where there is no file."""
    try:
        content = read_file(path)
    except FileNotFoundError:
        raise CardError(f"{path} is missing: {advice}.") from None
    except OSError as error:
        raise CardError(f"{path} cannot be read ({error.strerror}): check that it is a file.") from error
    return content.removeprefix(b"\xef\xbb\xbf")


def _likely_example(feature: Feature) -> Any:  # noqa: ANN401  # any JSON scalar
    """Return the feature's example, or a value that fits it (null where only null is sure to be right)."""
    if feature.example is not None:
        return feature.example
    for candidate in _candidates(feature):
        value, fault = read_value(feature, candidate)
        if fault is None:
            return value
    return None


def _candidates(feature: Feature) -> list[Any]:
    if feature.categories:
        return list(feature.categories)
    if feature.type == "boolean":
        return [False]
    if feature.type == "string":
        length = max(feature.min_length or 0, 1)
        return ["text", "text" * length, "t" * length, ""]
    if feature.type == "integer":
        low, high = integer_bounds(feature)
        return [1, 0, low, high]
    low_end = max(limit_or(feature.min, -math.inf), limit_or(feature.exclusive_min, -math.inf))
    high_end = min(limit_or(feature.max, math.inf), limit_or(feature.exclusive_max, math.inf))
    ends = [end for end in (low_end, high_end) if math.isfinite(end)]
    middle = low_end / 2 + high_end / 2
    return [1.0, 0.0, *([middle] if math.isfinite(middle) else []), low_end + 1, high_end - 1, *ends]


def _feature_schema(feature: Feature, *, null: bool, text: bool) -> dict[str, Any]:
    """Return the JSON Schema of one feature; it also allows null and texts, where the card reads them as values."""
    schema = _value_schema(feature, null=null)
    if feature.type != "string" and (text or feature.percent is not None):
        written: dict[str, Any] = {"type": "string", "pattern": _written(feature, text=text)}
        examples = schema.pop("examples")
        schema = {"anyOf": [schema, written], "examples": examples}
    if feature.default is not None:
        schema["default"] = feature.default
    if feature.description:
        schema["description"] = feature.description
    return schema


def _written(feature: Feature, *, text: bool) -> str:
    """Return the pattern of texts that can be read as a value; a pattern cannot check the limits of the value."""
    if feature.type == "boolean":
        return "^([Tt]rue|[Ff]alse|[Yy]es|[Nn]o|1|0)$"
    number = r"[+-]?[0-9]{1,15}" if feature.type == "integer" else r"[+-]?[0-9]{1,15}(\.[0-9]{1,15})?"
    percent = "" if feature.percent is None else "( ?%)?" if text else " ?%"
    return f"^{number}{percent}$"


def _value_schema(feature: Feature, *, null: bool) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": [feature.type, "null"] if null else feature.type}
    if feature.type == "integer":
        schema["minimum"], schema["maximum"] = integer_bounds(feature)
    elif feature.type == "number":
        limits = (
            ("minimum", feature.min),
            ("maximum", feature.max),
            ("exclusiveMinimum", feature.exclusive_min),
            ("exclusiveMaximum", feature.exclusive_max),
        )
        schema |= {keyword: plain(limit) for keyword, limit in limits if limit is not None}
    elif feature.type == "string":
        lengths = (("minLength", feature.min_length), ("maxLength", feature.max_length))
        schema |= {keyword: length for keyword, length in lengths if length is not None}
    if feature.categories is not None and feature.unknown == "refuse":
        schema["enum"] = [*feature.categories, *([None] if null else [])]
    schema["examples"] = [_likely_example(feature)]
    return schema

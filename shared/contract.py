"""A client's contract as a file: the words and rules that a card takes over, whatever it was inferred from.

It is a part of a card, in the card's own terms: how a row comes in, what an answer and a refusal look like, the
labels, the rules, and limits of features by name. What the model itself decides (its classes, what it was trained on)
is not in it.
"""

import difflib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.cards import Card, Rule, Views, read_document
from shared.csv_numbers import POINT
from shared.errors import CardError, RowFaults
from shared.features import Bound, Category, FaultCode, Feature, FeatureType
from shared.package import Package
from shared.reference import canonical_rows
from shared.refusals import first_faults
from shared.response import Refusal, Response
from shared.rows import RowValidator, may_be_absent


class FeatureTerms(BaseModel):
    """What a contract says about one feature; what it leaves out stays as the card has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    type: FeatureType | None = None
    required: bool | None = None
    nullable: bool | None = None
    min: Bound | None = None
    max: Bound | None = None
    exclusive_min: Bound | None = None
    exclusive_max: Bound | None = None
    min_length: int | None = None
    max_length: int | None = None
    categories: list[Category] | None = None
    unknown: Literal["accept", "refuse"] | None = None
    default: Category | None = None
    percent: Literal["points", "fraction"] | None = None
    derived: str | None = None
    message: str | dict[FaultCode, str] | None = None
    description: str | None = None
    example: Any = None


class Contract(BaseModel):
    """What a client was promised, in the terms of a card; every part may be left out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str | None = None
    labels: dict[str, str] | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    probability: Literal["sigmoid"] | None = None
    features: list[FeatureTerms] | None = None
    inputs: list[Feature] | None = None
    rules: list[Rule] | None = None
    missing: Literal["refuse", "null"] | None = None
    extra: Literal["refuse", "ignore"] | None = None
    text: Literal["refuse", "read"] | None = None
    input: Literal["wrapped", "flat"] | None = None
    wrapper: str | None = None
    batch_input: Literal["wrapped", "flat"] | None = None
    batch_wrapper: str | None = None
    on_error: Literal["continue", "abort"] | None = None
    client: str | None = None
    response: Response | None = None
    refusal: Refusal | None = None
    invocations: Literal["predict", "predict_proba"] | None = None
    views: Views | None = None


def read_contract(path: Path) -> Contract:
    """Read a contract; raise CardError that names the file, what is wrong and what to do."""
    content = read_document(path, advice="name a JSON file with the part of a card that clients rely on")
    try:
        return Contract.model_validate_json(content)
    except ValidationError as error:
        takes = ", ".join(Contract.model_fields)
        raise CardError(f"{path} is not a contract: {first_faults(error)}. Of a card, it takes {takes}.") from None


def lay_over(
    package: Package, path: Path, *, but: Collection[str] = (), rows: Sequence[Mapping[str, Any]] = ()
) -> Package:
    """Return the package with what the contract says in its card, except the fields that were chosen otherwise.

    The reference rows and the example must keep what the contract asks of a row. `rows` are the reference rows as they
    were given, with columns that the model does not take: they are needed where the contract has inputs of its own.
    Raises CardError where they do not fit, or where the contract means a feature or label that the model does not have.
    """
    contract = read_contract(path)
    said = {key: value for key, value in contract.model_dump(exclude_unset=True).items() if key not in but}
    if said.keys() & {"response", "refusal"}:
        said.setdefault("client", "")  # these are not the words of the client that the card names
    if said.get("threshold") is not None:
        said["decided_by"] = "probability"  # from that threshold on, and not as the model itself would
    features = said.pop("features", None) or []
    content = package.card.model_dump()
    content["features"] = _with_terms(content["features"], features, path)
    try:
        card = Card.model_validate(content | said)
    except ValidationError as error:
        raise CardError(f"{path} does not fit the model {package.card.name}: {first_faults(error)}.") from None
    given = _given_rows(card, package, rows, path) if card.inputs else package.reference
    flags = {feature.name for feature in card.row_features if feature.type == "boolean"}
    rows = [
        {name: bool(value) if name in flags and value in (0, 1) else value for name, value in row.items()}
        for row in given
    ]
    numbers = package.given_rows.numbers if package.given_rows is not None else POINT
    canonical = canonical_rows(card, rows, source=f"{path}, on the reference rows", numbers=numbers)
    _check_example(card, path)
    return Package(card, package.estimator, canonical, package.given_rows)


def _given_rows(
    card: Card, package: Package, rows: Sequence[Mapping[str, Any]], path: Path
) -> Sequence[Mapping[str, Any]]:
    """Return the reference rows with the inputs; raise CardError where they lack one that is needed."""
    given = rows or package.reference
    lacking = [
        feature.name
        for feature in card.inputs
        if not may_be_absent(card, feature) and all(feature.name not in row for row in given)
    ]
    if lacking:
        raise CardError(
            f"The reference rows lack the inputs {', '.join(lacking[:5])} of {path}: give --reference a file that has "
            "these columns beside the model's own."
        )
    return given


def _check_example(card: Card, path: Path) -> None:
    """Raise CardError where the card's own example breaks its rules: it is what /examples tells callers to send."""
    if any(feature.example is None for feature in card.asked):
        return  # what is made up for the others knows no rules
    try:
        RowValidator(card).validate(card.example())
    except RowFaults as refusal:
        told = "; ".join(f"{fault.pointer} {fault.message}" for fault in refusal.faults[:3])
        raise CardError(
            f"{path} does not fit the model {card.name}: the example of its features breaks a rule ({told}). "
            "Give examples that keep every rule."
        ) from None


def _with_terms(features: list[dict[str, Any]], terms: list[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    names = [feature["name"] for feature in features]
    by_name: dict[str, dict[str, Any]] = {}
    for term in terms:
        name = term["name"]
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            meant = f"did you mean {close[0]}?" if close else f"it has {', '.join(names[:5])}, ..."
            raise CardError(f"{path} names the feature {name[:100]!r}, which the model does not have: {meant}")
        if name in by_name:
            raise CardError(f"{path} describes the feature {name[:100]!r} twice: keep one.")
        by_name[name] = term
    return [feature | by_name.get(feature["name"], {}) for feature in features]

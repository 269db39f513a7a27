"""A client's contract as a file: names and rules that replace those of an inferred card.

It is a part of a card, in the card's own terms: how a row comes in, what an answer and a refusal look like, the
labels, the rules, and limits of features by name. What the model itself decides (its classes, what it was trained on)
is not in it.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.cards.card import Card, Rule, Views, read_document
from shared.cards.examples import MADE_UP, with_examples
from shared.cards.features import Bound, Category, FaultCode, Feature, FeatureType, plain
from shared.cards.numbers import POINT, NumberForm
from shared.cards.response import Refusal, Response
from shared.cards.validator import RowValidator, may_be_absent
from shared.errors import CardError, RowFaults
from shared.faults import Fault, counted, did_you_mean, few, sentence
from shared.packages.package import Package
from shared.packages.sample import ReferenceRows, sample, value_of
from shared.validation_errors import first_faults

SHOWN = 10  # demands of a contract that a message lists
SHOWN_PLACES = 20  # bad rows that it names
KEPT = ("name", "required", "nullable", "unknown", "description")  # of a feature whose type changes

log = logging.getLogger(__name__)


class FeatureOverrides(BaseModel):
    """The overrides of one feature in a contract; fields that it leaves out keep the card's values."""

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
    features: list[FeatureOverrides] | None = None
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
    """Read a contract; raise CardError with the file, the fault and the remedy."""
    content = read_document(path, advice="name a JSON file with the part of a card that clients rely on")
    try:
        return Contract.model_validate_json(content)
    except ValidationError as error:
        takes = ", ".join(Contract.model_fields)
        raise CardError(f"{path} is not a contract: {first_faults(error)}. Of a card, it takes {takes}.") from None


def apply_contract(
    package: Package,
    path: Path,
    *,
    but: Collection[str] = (),
    rows: Sequence[Mapping[str, Any]] = (),
    skip_bad: bool = False,
) -> Package:
    """Return the package with the contract's fields in its card, except the fields in `but`.

    The reference rows and the example must keep what the contract asks of a row; `skip_bad` leaves out the rows that do
    not. `rows` are the reference rows as they were given, with columns that the model does not take. They are needed
    where the contract has inputs of its own, and read anew where it changes the type of a feature. Raises CardError
    with every row that does not fit, or where the contract means a feature or label that the model does not have.
    """
    contract = read_contract(path)
    terms = {key: value for key, value in contract.model_dump(exclude_unset=True).items() if key not in but}
    if terms.keys() & {"response", "refusal"}:
        terms.setdefault("client", "")  # these are not the words of the client that the card names
    if terms.get("threshold") is not None:
        terms["decided_by"] = "probability"  # from that threshold on, and not as the model itself would
    features = terms.pop("features", None) or []
    content = package.card.model_dump()
    made_up = [] if MADE_UP not in package.card.notes else [feature.name for feature in package.card.features]
    for feature in content["features"]:
        if feature["name"] in made_up:
            feature["example"] = None  # made up anew, as the contract has it
    content["features"], retyped = _with_terms(content["features"], features, path)
    try:
        card = Card.model_validate(content | terms)
    except ValidationError as error:
        raise CardError(f"{path} does not fit the model {package.card.name}: {first_faults(error)}.") from None
    places = sample(range(len(rows))) if rows else list(range(len(package.reference)))
    rows_read = _sample_rows(card, package, rows, path) if card.inputs else package.reference
    if card.inputs and rows:
        rows_read = [rows_read[place] for place in places]
    numbers = package.file_rows.numbers if package.file_rows is not None else POINT
    named = package.file_rows if rows else None
    kinds = {feature.name: feature.type for feature in card.row_features}
    typed: list[dict[str, Any]] = []
    for number, row in enumerate(rows_read):
        row = {name: value_of(row[name], kind, numbers) for name, kind in kinds.items() if name in row}
        for name, kind in retyped.items():
            row[name] = _as_type(rows[places[number]].get(name) if rows else row[name], kind, numbers)
        for name, kind in kinds.items():
            if kind == "boolean" and row.get(name) in (0, 1):
                row[name] = bool(row[name])
        typed.append(row)
    good, faults = RowValidator(card).validate_many(typed)
    bad = [(place, row_faults) for place, row_faults in zip(places, faults, strict=True) if row_faults]
    kept = [row for row in good if row is not None]
    kept_lines = package.lines
    if kept_lines is not None:
        kept_lines = [line for line, row in zip(kept_lines, good, strict=True) if row is not None]
    if bad and (not skip_bad or not kept):
        raise CardError(_sentence(bad, len(typed), path, card, _places(bad, named)))
    if bad:
        log.warning(
            "%s of %s reference rows break %s and are left out of the sample: %s",
            len(bad), len(typed), path, _places(bad, named),
        )  # fmt: skip
    if made_up:
        card = with_examples(card, kept)
    _check_example(card, path)
    return Package(card, package.estimator, kept, package.file_rows, kept_lines)


def _sentence(bad: Sequence[tuple[int, list[Fault]]], count: int, path: Path, card: Card, places: str) -> str:
    """Return a sentence about rows that break a contract: their number for each demand, and the first rows of all."""
    by_demand: dict[str, int] = {}
    for _, row_faults in bad:
        for fault in row_faults:
            demand = fault.clause()
            by_demand[demand] = by_demand.get(demand, 0) + 1
    demands = sorted(by_demand.items(), key=lambda item: -item[1])[:SHOWN]
    listed = "; ".join(f"{demand} ({counted(number, 'row')})" for demand, number in demands)
    return (
        f"{path} does not fit {len(bad)} of {count} reference rows of {card.name}: {listed}. "
        f"{'It is' if len(bad) == 1 else 'They are'} {places}. "
        "Correct the contract or the rows, or leave these rows out of the sample with --skip-bad."
    )


def _places(bad: Sequence[tuple[int, list[Fault]]], file_rows: ReferenceRows | None) -> str:
    """Name the first bad rows by their places in the file, or by their number without a file."""
    unit = "row" if file_rows is None else file_rows.unit
    shown = [place + 1 if file_rows is None else file_rows.lines[place] for place, _ in bad]
    return f"{unit if len(bad) == 1 else f'the {unit}s'} {few(shown, SHOWN_PLACES)}"


def _as_type(value: Any, kind: FeatureType, numbers: NumberForm = POINT) -> Any:  # noqa: ANN401 - any JSON scalar
    """Return a value converted to another type, or unchanged where that fails, for the validator to refuse."""
    if value is None or isinstance(value, str):
        return value_of(value, kind, numbers)
    if kind == "string":
        return (
            str(value).lower() if isinstance(value, bool) else str(plain(value) if isinstance(value, float) else value)
        )
    if kind == "boolean":
        return bool(value) if value in (0, 1) else value
    return value


def _sample_rows(
    card: Card, package: Package, rows: Sequence[Mapping[str, Any]], path: Path
) -> Sequence[Mapping[str, Any]]:
    """Return the reference rows with the inputs; raise CardError if they lack a needed one."""
    file_rows = rows or package.reference
    lacking = [
        feature.name
        for feature in card.inputs
        if not may_be_absent(card, feature) and all(feature.name not in row for row in file_rows)
    ]
    if lacking:
        raise CardError(
            f"The reference rows lack the inputs {', '.join(lacking[:5])} of {path}: give --reference a file that has "
            "these columns beside the model's own."
        )
    return file_rows


def _check_example(card: Card, path: Path) -> None:
    """Raise CardError if the card's own example breaks its rules: /examples shows it to callers."""
    if any(feature.example is None for feature in card.sent_features):
        return  # what is made up for the others knows no rules
    try:
        RowValidator(card).validate(card.example())
    except RowFaults as refusal:
        subject = f"{path} does not fit the model {card.name}, because the example of its features breaks a rule"
        raise CardError(f"{sentence(refusal.faults, subject=subject)} Give examples that keep every rule.") from None


def _with_terms(
    features: list[dict[str, Any]], terms: list[dict[str, Any]], path: Path
) -> tuple[list[dict[str, Any]], dict[str, FeatureType]]:
    """Return the features with the contract's terms, and the new type of each feature with a changed type.

    Of a feature of another type, the categories, limits and example of the old one are gone, except what fits.
    """
    names = [feature["name"] for feature in features]
    by_name: dict[str, dict[str, Any]] = {}
    for term in terms:
        name = term["name"]
        if name not in names:
            hint = did_you_mean(name, names, otherwise=f"it has {few(names, 5)}.")
            raise CardError(f"{path} names the feature {name[:100]!r}, which the model does not have: {hint}")
        if name in by_name:
            raise CardError(f"{path} describes the feature {name[:100]!r} twice: keep one.")
        by_name[name] = term
    changed, retyped = [], {}
    for feature in features:
        term = by_name.get(feature["name"], {})
        kind = term.get("type", feature["type"])
        if kind != feature["type"]:
            retyped[feature["name"]] = kind
            categories = [_as_type(value, kind) for value in feature["categories"] or ()] or None
            is_number = {kind, feature["type"]} == {"integer", "number"}
            old = {key: value for key, value in feature.items() if is_number or key in KEPT}
            feature = old | {"example": _as_type(feature["example"], kind)}
            feature |= {"categories": categories, "unknown": old["unknown"]} if categories else {"unknown": "accept"}
        changed.append(feature | term)
    return changed, retyped

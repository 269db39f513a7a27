"""Rows against a card: a compiled fast path for good rows, and every fault of a bad one."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic_core import CoreSchema, SchemaValidator, ValidationError, core_schema

from shared.cards.card import Card
from shared.cards.features import Feature, expected, integer_bounds, read_value
from shared.cards.formulas import compile_formulas
from shared.cards.rules import compile_rules, parse_rule
from shared.cards.text_values import read_text
from shared.errors import MAX_FAULTS, RowFaults
from shared.faults import Fault, OwnWords, did_you_mean, few, pointer, pointer_to_unknown, sentence

SUGGESTIONS = 10  # close matches are searched for so many unknown names of a request: the search is slow
_LACKING = Fault("", "missing", "lacks features that the model needs")
TEXT = r"^[^\x00]*$"  # NUL cannot be stored as jsonb; the pattern refuses lone surrogates too


class Tally:
    """The faults of one request's rows: the first thousand are built, then one for each bad row; all are counted."""

    def __init__(self, most: int = MAX_FAULTS) -> None:
        self.count = 0  # of all faults
        self.left = most  # that may still be built
        self.searches = SUGGESTIONS  # for close matches that may still be made


class RowValidator:
    """Checks rows against one card; built once per model version, safe to share between threads."""

    def __init__(self, card: Card) -> None:
        self.card = card
        features = card.row_features
        self.names = {feature.name for feature in features}
        null_names = {feature.name for feature in features if takes_null(card, feature)}
        self._features = features
        self._required = {feature.name for feature in features if not may_be_absent(card, feature)}
        # The compiled validator keeps a fault for each key that it does not know, with the processor all to itself.
        self._most_keys = len(features) + MAX_FAULTS if card.extra == "refuse" else sys.maxsize
        self._integers = [feature.name for feature in features if feature.type == "integer"]
        self._written = [feature for feature in features if may_be_written(card, feature)]
        self._compiled = SchemaValidator(_row_schema(card))
        self._closed = [
            (feature.name, frozenset([*feature.categories, *([None] if feature.name in null_names else [])]))
            for feature in features
            if feature.unknown == "refuse" and feature.categories is not None
        ]
        self.formulas = compile_formulas(features, takes_null=lambda feature: takes_null(card, feature))
        self._rules = [parse_rule(rule.expression, rule.message, features) for rule in card.rules]
        self._all_hold = compile_rules(self._rules, null_names)
        self._each_holds = [compile_rules([rule], null_names) for rule in self._rules]

    def validate(self, row: object) -> dict[str, Any]:
        """Return the canonical row: every feature in card order, absent and null ones as None.

        Integers are int, numbers float. Raises RowFaults with its faults, pointers like `/age`, and how many they are.
        """
        canonical = self._fast(row) or self._fast(self._with_values(row))
        if canonical is None:
            tally = Tally()
            canonical, faults = self._validate_slowly(row, tally)
            if faults:
                subject = f"The row does not fit {self.card.name}@{self.card.version}"
                text = sentence(faults, subject=subject, count=tally.count)
                raise RowFaults(text, faults=faults, fault_count=tally.count)
        return canonical

    def validate_many(
        self, rows: Sequence[object], tally: Tally | None = None
    ) -> tuple[list[dict[str, Any] | None], list[list[Fault]]]:
        """Return, for each row in order, the canonical row or None, and its faults (empty for a good row).

        Every bad row has one fault at least; a `tally` bounds how many there are in all.
        """
        canonical_rows: list[dict[str, Any] | None] = []
        faults_of_rows: list[list[Fault]] = []
        tally = tally or Tally(sys.maxsize)
        for row in rows:
            faults: list[Fault] = []
            canonical = self._fast(row) or self._fast(self._with_values(row))
            if canonical is None:
                canonical, faults = self._validate_slowly(row, tally)
            canonical_rows.append(None if faults else canonical)
            faults_of_rows.append(faults)
        return canonical_rows, faults_of_rows

    def _fast(self, row: object) -> dict[str, Any] | None:
        """Return the canonical row of a plainly good row; None when `_validate_slowly` has to look."""
        if type(row) is dict and len(row) > self._most_keys:
            return None
        try:
            canonical: dict[str, Any] = self._compiled.validate_python(row)
        except ValidationError:
            return None
        for formula in self.formulas:
            value, fault = formula.value(canonical)
            if fault is not None or formula.misfit(canonical[formula.feature.name], value) is not None:
                return None
            canonical[formula.feature.name] = value
        for name, categories in self._closed:
            if canonical[name] not in categories:
                return None
        return canonical if self._all_hold(canonical) else None

    def _with_values(self, row: object) -> object:
        """Convert integral floats to integers, since pandas and spreadsheets send 35.0, and texts to their values."""
        if not isinstance(row, dict):
            return row
        if self._written:
            row = row | {
                feature.name: read_text(feature, value, is_read=self.card.text == "read")
                for feature in self._written
                if isinstance(value := row.get(feature.name), str)
            }
        return row | {
            name: int(value) for name in self._integers if type(value := row.get(name)) is float and value.is_integer()
        }

    def _validate_slowly(self, row: object, tally: Tally) -> tuple[dict[str, Any], list[Fault]]:
        """Check the row feature by feature: the same verdict as the fast path, with reasons.

        Of a row after a thousand faults, only the first reason is kept, and how many there are besides.
        """
        before, is_brief = tally.count, tally.left <= 0
        if isinstance(row, dict):
            lacking = self._required - row.keys() if is_brief else frozenset()
            checked = [
                (None, _LACKING) if feature.name in lacking else read_feature(self.card, feature, row)
                for feature in self._features
            ]
            unknown = self._unknown(row, tally) if self.card.extra == "refuse" else []
            canonical, faults = self.combine_checks(checked, unknown)
        else:
            canonical, faults = {}, [Fault("", "not_an_object", "must be an object of feature names and values")]
        tally.count += len(faults)
        tally.left -= len(faults)
        besides = tally.count - before - 1
        if is_brief and besides > 0:
            faults[1:] = [Fault("", "more_faults", f"{besides} more faults of this row were only counted")]
        return canonical, faults

    def combine_checks(
        self, checked: Iterable[tuple[Any, Fault | None]], unknown: Iterable[Fault] = ()
    ) -> tuple[dict[str, Any], list[Fault]]:
        """Return the canonical values and all faults of a row whose features were checked one by one, in card order."""
        canonical: dict[str, Any] = {}
        faults: list[Fault] = []
        for feature, (value, fault) in zip(self._features, checked, strict=True):
            if fault is None:
                canonical[feature.name] = value
            else:
                faults.append(fault)
        faults += unknown
        for formula in self.formulas:
            if not canonical.keys() >= {*formula.names, formula.feature.name}:
                continue  # it cannot be said before those are right
            value, fault = formula.value(canonical)
            fault = fault or formula.misfit(canonical[formula.feature.name], value)
            canonical[formula.feature.name] = value
            if fault is not None:
                faults.append(fault)
                del canonical[formula.feature.name]
        for rule, holds in zip(self._rules, self._each_holds, strict=True):
            if all(name in canonical for name in rule.names) and not holds(canonical):
                faults.append(Fault(pointer(rule.names[0]), "rule", rule.message))
        return canonical, faults

    def _unknown(self, row: dict[Any, Any], tally: Tally) -> list[Fault]:
        """Return a fault for each key that the card does not name, with the closest known name."""
        unknown = [key for key in row if key not in self.names]
        shown = unknown[: max(1, tally.left)]
        tally.count += len(unknown) - len(shown)
        faults = []
        for key in map(str, shown):
            tally.searches -= 1
            hint = did_you_mean(key, self.names if tally.searches >= 0 else ())
            faults.append(Fault(pointer_to_unknown(key), "unknown_feature", f"is not a feature of this model: {hint}"))
        return faults


def takes_null(card: Card, feature: Feature) -> bool:
    """Return whether null is valid: also where absence means null, so that a canonical row is valid itself."""
    return feature.nullable or not feature.required or card.missing == "null"


def may_be_absent(card: Card, feature: Feature) -> bool:
    """Return whether a row may lack the feature; its value is then the default, or null."""
    return not feature.required or card.missing == "null" or feature.default is not None or feature.derived is not None


def may_be_written(card: Card, feature: Feature) -> bool:
    """Return whether a text may represent a value of the feature."""
    return feature.type != "string" and (card.text == "read" or feature.percent is not None)


def default_of(feature: Feature) -> Any:  # noqa: ANN401 - any JSON scalar
    """Return the canonical value of a feature that is absent; None for null."""
    return None if feature.default is None else read_value(feature, feature.default)[0]


def read_feature(card: Card, feature: Feature, row: dict[Any, Any]) -> tuple[Any, Fault | None]:
    """Return a feature's canonical value in a row and None, or None and its fault.

    Of a derived one, it is the value that was sent, or None.
    """
    value, fault = _read_plain_feature(card, feature, row)
    if fault is None or feature.message is None or fault.code not in feature.message:
        return value, fault
    return None, OwnWords(fault.pointer, fault.code, feature.message[fault.code])


def _read_plain_feature(card: Card, feature: Feature, row: dict[Any, Any]) -> tuple[Any, Fault | None]:
    if feature.name not in row:
        if may_be_absent(card, feature):
            return default_of(feature), None
        message = f"is missing: give {expected(feature)}"
        return None, Fault(pointer(feature.name), "missing", f"{message}, or null" if feature.nullable else message)
    value = row[feature.name]
    if value is not None:
        if isinstance(value, str) and may_be_written(card, feature):
            value = read_text(feature, value, is_read=card.text == "read")
        return read_value(feature, value)
    if feature.derived is not None or takes_null(card, feature):
        return None, None
    return None, Fault(pointer(feature.name), "null", f"must not be null: give {expected(feature)}")


def odd_features(card: Card, row: Mapping[str, Any]) -> tuple[list[str], str]:
    """Return the features of a row that are null or of no known category, and a sentence's end about them."""
    null = [feature.name for feature in card.features if row[feature.name] is None]
    unknown = [
        feature.name
        for feature in card.features
        if feature.categories is not None and row[feature.name] not in (None, *feature.categories)
    ]
    reasons = [f"{few(null)} null"] if null else []
    reasons += [f"a category in {few(unknown)} that its training did not have"] if unknown else []
    return null + unknown, " and ".join(reasons)


def _row_schema(card: Card) -> CoreSchema:
    fields = {}
    for feature in card.row_features:
        schema = _value_schema(feature)
        if feature.derived is not None or takes_null(card, feature):
            schema = core_schema.nullable_schema(schema)
        if may_be_absent(card, feature):
            schema = core_schema.with_default_schema(schema, default=default_of(feature))
        fields[feature.name] = core_schema.typed_dict_field(schema, required=not may_be_absent(card, feature))
    extra: Literal["forbid", "ignore"] = "forbid" if card.extra == "refuse" else "ignore"
    return core_schema.typed_dict_schema(fields, strict=True, extra_behavior=extra)


def _value_schema(feature: Feature) -> CoreSchema:
    """Compile what `read_value` checks, except categories and the forms that only the slow path takes."""
    if feature.type == "integer":
        low, high = integer_bounds(feature)
        return core_schema.int_schema(strict=True, ge=low, le=high)
    if feature.type == "number":
        return core_schema.float_schema(
            strict=True,
            allow_inf_nan=False,
            ge=feature.min,
            le=feature.max,
            gt=feature.exclusive_min,
            lt=feature.exclusive_max,
        )
    if feature.type == "boolean":
        return core_schema.bool_schema(strict=True)
    return core_schema.str_schema(
        strict=True, pattern=TEXT, min_length=feature.min_length, max_length=feature.max_length
    )

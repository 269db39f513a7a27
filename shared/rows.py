"""Rows against a card: a compiled fast path for good rows, and every fault of a bad one."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from pydantic_core import CoreSchema, SchemaValidator, ValidationError, core_schema

from shared.cards import Card
from shared.errors import Fault, RowFaults
from shared.features import Feature, check_value, expected, integer_bounds, pointer, pointer_of_stranger
from shared.rules import compile_rules, parse_rule

SUGGESTIONS = 10  # close matches are searched for so many unknown names of a request: the search is slow
DETAILED = 3  # faults that the error's own sentence spells out
TEXT = r"^[^\x00]*$"  # NUL cannot be stored as jsonb; the pattern refuses lone surrogates too


class RowValidator:
    """Checks rows against one card; built once per model version, safe to share between threads."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.names = {feature.name for feature in card.features}
        null_names = {feature.name for feature in card.features if takes_null(card, feature)}
        self._by_lower = {feature.name.lower(): feature.name for feature in card.features}
        self._integers = [feature.name for feature in card.features if feature.type == "integer"]
        self._compiled = SchemaValidator(_row_schema(card))
        self._closed = [
            (feature.name, frozenset([*feature.categories, *([None] if feature.name in null_names else [])]))
            for feature in card.features
            if feature.unknown == "refuse" and feature.categories is not None
        ]
        self._rules = [parse_rule(rule.expression, rule.message, card.features) for rule in card.rules]
        self._all_hold = compile_rules(self._rules, null_names)
        self._each_holds = [compile_rules([rule], null_names) for rule in self._rules]

    def validate(self, row: object) -> dict[str, Any]:
        """Return the canonical row: every feature in card order, absent and null ones as None.

        Integers are int, numbers float. Raises RowFaults with every fault, pointers like `/age`.
        """
        canonical = self._fast(row) or self._fast(self._with_integers(row))
        if canonical is None:
            canonical, faults = self._explain(row, _suggestions())
            if faults:
                raise RowFaults(_sentence(self.card, faults), faults=faults)
        return canonical

    def validate_many(self, rows: Sequence[object]) -> tuple[list[dict[str, Any] | None], list[list[Fault]]]:
        """Return, for each row in order, the canonical row or None, and its faults (empty for a good row)."""
        canonical_rows: list[dict[str, Any] | None] = []
        faults_of_rows: list[list[Fault]] = []
        suggestions = _suggestions()
        for row in rows:
            faults: list[Fault] = []
            canonical = self._fast(row) or self._fast(self._with_integers(row))
            if canonical is None:
                canonical, faults = self._explain(row, suggestions)
            canonical_rows.append(None if faults else canonical)
            faults_of_rows.append(faults)
        return canonical_rows, faults_of_rows

    def _fast(self, row: object) -> dict[str, Any] | None:
        """Return the canonical row of a plainly good row; None when `_explain` has to look."""
        try:
            canonical: dict[str, Any] = self._compiled.validate_python(row)
        except ValidationError:
            return None
        for name, categories in self._closed:
            if canonical[name] not in categories:
                return None
        return canonical if self._all_hold(canonical) else None

    def _with_integers(self, row: object) -> object:
        """Write integral floats as integers: pandas and spreadsheets send 35.0 for an integer."""
        if not isinstance(row, dict):
            return row
        return row | {
            name: int(value) for name in self._integers if type(value := row.get(name)) is float and value.is_integer()
        }

    def _explain(self, row: object, suggestions: Iterator[int]) -> tuple[dict[str, Any], list[Fault]]:
        """Check the row feature by feature: the same verdict as the fast path, with reasons."""
        if not isinstance(row, dict):
            return {}, [Fault("", "not_an_object", "must be an object of feature names and values")]
        checked = [check_feature(self.card, feature, row) for feature in self.card.features]
        return self.weigh(checked, self._unknown(row, suggestions) if self.card.extra == "refuse" else [])

    def weigh(
        self, checked: Iterable[tuple[Any, Fault | None]], unknown: Iterable[Fault] = ()
    ) -> tuple[dict[str, Any], list[Fault]]:
        """Return the canonical values and all faults of a row whose features were checked one by one, in card order."""
        canonical: dict[str, Any] = {}
        faults: list[Fault] = []
        for feature, (value, fault) in zip(self.card.features, checked, strict=True):
            if fault is None:
                canonical[feature.name] = value
            else:
                faults.append(fault)
        faults += unknown
        for rule, holds in zip(self._rules, self._each_holds, strict=True):
            if all(name in canonical for name in rule.names) and not holds(canonical):
                faults.append(Fault(pointer(rule.names[0]), "rule", rule.message))
        return canonical, faults

    def _unknown(self, row: dict[Any, Any], suggestions: Iterator[int]) -> list[Fault]:
        """Return a fault for each key that the card does not name, with the name that was probably meant."""
        unknown = [str(key) for key in row if key not in self.names]
        faults = []
        for key in unknown:
            is_searched = next(suggestions, None) is not None
            close = difflib.get_close_matches(key[:200].lower(), self._by_lower, 1) if is_searched else []
            hint = f'did you mean "{self._by_lower[close[0]]}"?' if close else "remove it"
            faults.append(Fault(pointer_of_stranger(key), "unknown_feature", f"is not a feature of this model: {hint}"))
        return faults


def _suggestions() -> Iterator[int]:
    """Return what one call may spend on close matches: an item for each search."""
    return iter(range(SUGGESTIONS))


def takes_null(card: Card, feature: Feature) -> bool:
    """Tell whether null is taken: also wherever absence is, so that a canonical row is valid itself."""
    return feature.nullable or may_be_absent(card, feature)


def may_be_absent(card: Card, feature: Feature) -> bool:
    """Tell whether a row may lack the feature, which is then null."""
    return not feature.required or card.missing == "null"


def check_feature(card: Card, feature: Feature, row: dict[Any, Any]) -> tuple[Any, Fault | None]:
    """Return a feature's canonical value in a row and None, or None and what is wrong with it."""
    if feature.name not in row:
        if may_be_absent(card, feature):
            return None, None
        message = f"is missing: give {expected(feature)}"
        return None, Fault(pointer(feature.name), "missing", f"{message}, or null" if feature.nullable else message)
    value = row[feature.name]
    if value is not None:
        return check_value(feature, value)
    if takes_null(card, feature):
        return None, None
    return None, Fault(pointer(feature.name), "null", f"must not be null: give {expected(feature)}")


def _sentence(card: Card, faults: list[Fault]) -> str:
    """Sum the faults up for clients that show only one sentence."""
    parts = [
        fault.message if fault.code == "rule" else f"{fault.pointer[1:]} {fault.message}".strip()
        for fault in faults[:DETAILED]
    ]
    if len(faults) > DETAILED:
        parts.append(f"and {len(faults) - DETAILED} more")
    return f"The row does not fit {card.name}@{card.version}: {'; '.join(parts)}."


def _row_schema(card: Card) -> CoreSchema:
    fields = {}
    for feature in card.features:
        schema = _value_schema(feature)
        if takes_null(card, feature):
            schema = core_schema.nullable_schema(schema)
        if may_be_absent(card, feature):
            schema = core_schema.with_default_schema(schema, default=None)
        fields[feature.name] = core_schema.typed_dict_field(schema, required=not may_be_absent(card, feature))
    extra: Literal["forbid", "ignore"] = "forbid" if card.extra == "refuse" else "ignore"
    return core_schema.typed_dict_schema(fields, strict=True, extra_behavior=extra)


def _value_schema(feature: Feature) -> CoreSchema:
    """Compile what `check_value` checks, except categories and the forms that only the slow path takes."""
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

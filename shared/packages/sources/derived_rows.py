"""Reference rows as callers send them: the features that a contract computes are added before a card is inferred."""

import ast
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from shared.cards.card import Card
from shared.cards.features import Feature, FeatureType
from shared.cards.formulas import formula_type
from shared.cards.rules import RuleError
from shared.cards.validator import RowValidator
from shared.errors import CardError
from shared.faults import few, sentence
from shared.packages.card_inference import narrowest_type
from shared.packages.contract import Contract, FeatureOverrides
from shared.packages.package import UNHASHED
from shared.packages.sample import ReferenceRows, value_of
from shared.validation_errors import first_faults


def with_derived(
    file_rows: ReferenceRows, kinds: Mapping[str, FeatureType | None], *, contract: Contract, source: Path
) -> ReferenceRows:
    """Return the rows with the columns that the contract derives and the file does not have.

    `kinds` are the model's features, each with its type where it is known. Rows whose inputs break the contract hold
    null there: applying the contract names them. Raises CardError where the formulas cannot be computed at all, from
    the columns of the file or from any of its rows.
    """
    columns = {column for row in file_rows.rows for column in row}
    terms = {term.name: term for term in contract.features or ()}
    derived = {name: term for name, term in terms.items() if term.derived is not None and name in kinds}
    if not derived.keys() - columns:
        return file_rows
    sent: list[Feature] = list(contract.inputs or ())
    for name, kind in kinds.items():
        if name in columns and name not in derived:
            kind = kind or narrowest_type([row.get(name) for row in file_rows.rows], file_rows.numbers)
            sent.append(_feature(terms.get(name) or FeatureOverrides(name=name), kind))
    try:
        computed = _computed(derived, kinds, sent)
        card = Card(
            name="rows", version=1, sha256=UNHASHED, task="regression", features=[*sent, *computed], extra="ignore",
            text=contract.text or "refuse", missing=contract.missing or "refuse",
        )  # fmt: skip
    except (RuleError, ValidationError) as error:
        named = {name for term in derived.values() for name in _names_in(str(term.derived))}
        if absent := [name for name in kinds if name in named - columns - derived.keys()]:
            raise CardError(
                f"{source} lacks {few(absent)}, which the model takes and the contract does not derive: give rows with "
                "every column that callers send."
            ) from error
        reason = first_faults(error) if isinstance(error, ValidationError) else str(error)
        raise CardError(f"{source} lacks {', '.join(derived)}, and {reason}.") from error
    types = {feature.name: feature.type for feature in sent}
    typed = [
        {name: value_of(row[name], kind, file_rows.numbers) for name, kind in types.items() if name in row}
        for row in file_rows.rows
    ]
    good, faults = RowValidator(card).validate_many(typed)
    if not any(good):
        subject = (
            f"{', '.join(derived)} cannot be computed for any row of {source}: {file_rows.unit} {file_rows.lines[0]}"
        )
        raise CardError(f"{sentence(faults[0], subject=subject)} Correct the rows, or the contract.")
    added = derived.keys() - columns
    rows = [
        row | {name: None if canonical is None else canonical[name] for name in derived if name in added}
        for row, canonical in zip(file_rows.rows, good, strict=True)
    ]
    return replace(file_rows, rows=rows)


def _computed(
    derived: Mapping[str, FeatureOverrides], kinds: Mapping[str, FeatureType | None], sent: list[Feature]
) -> list[Feature]:
    """Return the derived features with their types: the contract's, the model's, or those of their formulas."""
    features, waiting = list(sent), dict(derived)
    while waiting:
        for name, term in waiting.items():
            try:
                kind = term.type or kinds[name] or formula_type(name, str(term.derived), features)
            except RuleError as error:
                reason = error
                continue  # it may need another of them
            features.append(_feature(term, kind))
            del waiting[name]
            break
        else:
            raise reason
    return features[len(sent) :]


def _names_in(formula: str) -> set[str]:
    """Return the names that a formula uses; none where it cannot be read."""
    try:
        return {node.id for node in ast.walk(ast.parse(formula, mode="eval")) if isinstance(node, ast.Name)}
    except SyntaxError:
        return set()


def _feature(term: FeatureOverrides, kind: FeatureType) -> Feature:
    """Return a feature of this type as the contract has it; its nulls are for the inferred card to judge."""
    terms: dict[str, Any] = term.model_dump(exclude_unset=True) | {"type": term.type or kind, "nullable": True}
    return Feature.model_validate(terms)

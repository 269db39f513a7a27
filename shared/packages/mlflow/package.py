"""The package of a model from an MLflow folder: the card follows the signature, the examples are its reference rows."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from shared.cards.card import Card, Feature
from shared.cards.examples import MADE_UP, with_examples
from shared.cards.numbers import NumberForm
from shared.csv.format import CsvOptions
from shared.encoding.trained_columns import as_written, dropped_columns
from shared.errors import ArtefactError, CardError
from shared.packages.agreement import feature_names
from shared.packages.artefacts.libraries import library_versions
from shared.packages.card_inference import expected_columns, infer_card
from shared.packages.mlflow.folder import MLMODEL, MlflowFolder, Row, advice_of, example_of
from shared.packages.mlflow.signature import SHOWN, Signature, SignatureColumn, read_signature
from shared.packages.package import (
    Complete,
    Package,
    as_they_are,
    sha256_of,
    unpickle_with_versions,
    warn_version_mismatch,
)
from shared.packages.sample import ReferenceRows, canonical_rows, check_target, read_rows, sample, value_of
from shared.validation_errors import first_faults

log = logging.getLogger(__name__)


def mlflow_package(
    folder: MlflowFolder,
    artefact: Path,
    reference: Path | None,
    changes: Mapping[str, Any],
    *,
    without: str | None = None,
    csv_options: CsvOptions | None = None,
    complete: Complete = as_they_are,
) -> Package:
    """Return the package of a model from MLflow: the card follows the signature, if the model has one.

    `artefact` is what `joblib_file` gives. Without a file of reference rows, the input example is one. The column
    `without` of the rows is none that a nameless model was trained on; `complete` adds columns that their file lacks.
    Raises CardError where the signature and the estimator, or the rows, contradict each other.
    """
    if "name" not in changes:
        raise CardError(f"{folder.path} names no model: give it a name with --name.")
    source = str(folder.path / MLMODEL)
    signature = read_signature(folder.about.get("signature"), source)
    sha256 = sha256_of(artefact)
    estimator, saved_versions = _load(folder, artefact, sha256)
    columns = _agreed(signature, estimator, source)
    file_rows = _rows(folder, reference, columns, estimator, changes.get("target"), csv_options)
    if reference is not None:
        names = dict.fromkeys(feature_names(estimator) or ())
        file_rows = complete(file_rows, names | {column.name: column.type for column in columns})
    rows = file_rows.rows
    if without not in (feature_names(estimator) or ()):
        rows = [{name: value for name, value in row.items() if name != without} for row in rows]
    columns = columns or _matrix_columns(signature, estimator, rows[0], changes.get("target"), source)
    if columns:
        _check_columns(rows, columns, str(reference or folder.path))
        rows = [{column.name: row.get(column.name) for column in columns} for row in rows]
    options = {key: value for key, value in changes.items() if key != "target"} if columns else dict(changes)
    card = infer_card(estimator, rows, sha256=sha256, numbers=file_rows.numbers, **({"version": 1} | options))
    libraries = {name: folder.libraries[name] for name in library_versions(estimator) if name in folder.libraries}
    warn_version_mismatch(folder.artefact, {name: libraries[name] for name in libraries if name not in saved_versions})
    if folder.answers not in ("predict", "predict_proba"):
        log.warning("MLflow answers with %s of this model; /invocations answers with predict", folder.answers)
    card = _signed(card, columns, file_rows.numbers, rows, source).model_copy(
        update={
            "extra": "ignore",  # as MLflow's own server does with columns that the signature does not name
            "target": changes.get("target"),
            "invocations": "predict_proba" if folder.answers == "predict_proba" else "predict",
            "libraries": libraries | saved_versions,
            "trained_at": folder.saved_at,
            "notes": f"{folder.notes} Its {MADE_UP}.",
        }
    )
    canonical = canonical_rows(
        card,
        rows,
        source=str(reference or folder.path),
        numbers=file_rows.numbers,
        lines=file_rows.lines,
        unit=file_rows.unit,
    )
    return Package(card, estimator, canonical, file_rows, sample(file_rows.lines))


def _load(folder: MlflowFolder, artefact: Path, sha256: str) -> tuple[Any, dict[str, str]]:
    try:
        return unpickle_with_versions(artefact, sha256=sha256)
    except ArtefactError as error:
        raise ArtefactError(error.detail + advice_of(folder, versions="saved it" not in error.detail)) from error


def _agreed(signature: Signature | None, estimator: object, source: str) -> list[SignatureColumn]:
    """Return the signature's columns in the order of the estimator's features; raise where they are not the same."""
    if signature is None or not signature.columns:
        return []
    columns = {column.name: column for column in signature.columns}
    if len(columns) < len(signature.columns):
        raise CardError(f"The signature in {source} names a column twice: log the model again.")
    trained = feature_names(estimator)
    count = getattr(estimator, "n_features_in_", None)
    if trained is None:
        if count is not None and count != len(columns):
            raise CardError(
                f"The signature in {source} has {len(columns)} columns and the model was trained on {count}: infer it "
                "from the rows that the model was trained on, without the target, and log the model again."
            )
        return signature.columns
    trained, dropped = as_written(estimator, trained, list(columns)), dropped_columns(estimator)
    absent = [name for name in trained if name not in columns]
    foreign = [name for name in columns if name not in trained and name not in dropped]
    if absent or foreign:
        differences = [f"lacks {', '.join(absent[:SHOWN])}"] if absent else []
        differences += [f"has {', '.join(foreign[:SHOWN])}, which the model does not know"] if foreign else []
        raise CardError(
            f"The signature in {source} and the model disagree: the signature {' and '.join(differences)}. Infer it "
            "from the rows that the model was trained on, without the target, and log the model again."
        )
    return [columns[name] for name in trained]


def _rows(
    folder: MlflowFolder,
    reference: Path | None,
    columns: Sequence[SignatureColumn],
    estimator: object,
    target: str | None,
    csv_options: CsvOptions | None,
) -> ReferenceRows:
    if reference is not None:
        expected = expected_columns(estimator)
        signed = {column.name: column.type for column in columns}
        file_rows = read_rows(reference, replace(expected, kinds={**expected.kinds, **signed}), csv_options)
        if target is not None and reference.suffix not in {".jsonl", ".ndjson"}:
            check_target(target, file_rows.rows)
        return file_rows
    names = [column.name for column in columns] or feature_names(estimator)
    rows = example_of(folder, names)
    if not rows:
        unnamed = "" if names else ", whose header names the columns that the model was trained on, in their order"
        raise CardError(
            f"{folder.path} holds no input example with named columns: give --reference rows.csv{unnamed}, or log the "
            "model again with input_example."
        )
    return ReferenceRows(rows, list(range(1, len(rows) + 1)), unit="row")


def _matrix_columns(
    signature: Signature | None, estimator: object, row: Row, target: str | None, source: str
) -> list[SignatureColumn]:
    """Return the columns of a matrix, named as the estimator knows them, or as the reference rows are."""
    if signature is None or signature.matrix is None:
        return []
    names = feature_names(estimator) or [name for name in row if name != target]
    if signature.width not in (None, len(names)):
        raise CardError(
            f"The signature in {source} is a matrix of {signature.width} columns, and {len(names)} are named: give "
            "--reference rows with exactly those that the model was trained on."
        )
    return [SignatureColumn(name, signature.matrix, required=True) for name in names]


def _check_columns(rows: Sequence[Row], columns: Sequence[SignatureColumn], source: str) -> None:
    absent = [column.name for column in columns if column.required and column.name not in rows[0]]
    if absent:
        raise CardError(
            f"The rows of {source} lack {len(absent)} of the signature's {len(columns)} columns "
            f"({', '.join(absent[:SHOWN])}): give rows with every one of them."
        )


def _signed(
    card: Card, columns: Sequence[SignatureColumn], numbers: NumberForm, rows: Sequence[Row], source: str
) -> Card:
    """Return the card with the types and the needs of the signature."""
    inferred = {feature.name: feature for feature in card.features}
    try:
        features = [_feature(inferred[column.name], column) for column in columns]
    except ValidationError as error:
        raise CardError(
            f"The signature in {source} and the model disagree ({first_faults(error)}): infer it from the rows that "
            "the model was trained on, and log the model again."
        ) from error
    if not features:
        return card
    typed = [{column.name: value_of(row[column.name], column.type, numbers) for column in columns} for row in rows]
    return with_examples(card.model_copy(update={"features": features}), typed)


def _feature(inferred: Feature, column: SignatureColumn) -> Feature:
    changes = {"type": column.type, "required": column.required, "example": None}
    return Feature.model_validate(inferred.model_dump() | changes)

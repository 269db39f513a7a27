"""Sources of models to add: each kind yields a candidate, which the registry checks and stores.

A source reads what lies there, and writes one joblib file of it; it decides nothing that the database knows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from shared.cards.card import Card
from shared.csv.format import CsvOptions
from shared.errors import ArtefactError
from shared.packages.assembly import assembled
from shared.packages.contract import read_contract
from shared.packages.package import (
    CARD_FILE,
    MODEL_FILE,
    REFERENCE_FILE,
    Complete,
    Package,
    as_they_are,
    infer_package,
    read_package,
)
from shared.packages.skops_file import HARMLESS, is_skops, joblib_of_skops

MLMODEL = "MLmodel"  # what makes a folder one that MLflow saved


@dataclass(frozen=True, slots=True, kw_only=True)
class AddOptions:
    """The operator's options for a new model; the rest is read from its files, or inferred."""

    name: str | None = None  # the card's
    version: int | None = None  # the next free one
    alias: str | None = None  # to move to the version; the champion of a model that has no alias yet
    is_candidate: bool = False  # leave every alias where it is, also that of a model's first version
    target: str | None = None  # column of the reference rows that holds the answer
    threshold: float | None = None  # probability from which on the answer is the second class; the model's own
    labels: Mapping[str, str] | None = None  # class of the model -> its name
    probability: str | None = None  # `sigmoid`: of decision_function, where the model gives no probabilities
    task: str | None = None  # read off the model
    reference: Path | None = None  # rows like those that the model was trained on
    csv: CsvOptions | None = None  # how that file is written, as far as it is known; the rest is detected
    scores: str | None = None  # column of these rows with the scores that the model gave where it was trained
    skip_bad: bool = False  # leave rows that break the contract out of the sample, instead of refusing the model
    card: Path | None = None  # inferred from the model and the reference rows
    contract: Path | None = None  # words and rules of a client, which the card takes over (contract.py)
    preprocessor: Path | None = None  # joblib file of a fitted transformer that comes before the model
    code: Path | None = None  # file or folder of modules that both need; becomes part of the artefact (assembly.py)
    metrics: Mapping[str, float] | None = None  # of the training, for the card
    trust: Sequence[str] = ()  # types that a skops file may hold beside those that skops knows

    def changes(self) -> dict[str, Any]:
        """Return the fields of the card that are chosen here, whatever the files say."""
        chosen = {
            "name": self.name,
            "version": self.version,
            "target": self.target,
            "threshold": self.threshold,
            "task": self.task,
            "labels": dict(self.labels) if self.labels else None,
            "probability": self.probability,
            "decided_by": None if self.threshold is None else "probability",  # and not as the model itself would
        }
        return {field: value for field, value in chosen.items() if value is not None}

    def no_features(self) -> list[str]:
        """Return the columns of the reference rows that are chosen here as the answer and the scores."""
        return [column for column in (self.target, self.scores) if column is not None]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may become a version."""

    package: Package
    artefact: Path  # the joblib file to keep; it may be there only as long as the source is open
    reference: Path | None = None  # the file that its reference rows were read from, if there was one


def open_source(path: Path, options: AddOptions) -> AbstractContextManager[Candidate]:
    """Yield the candidate at a path: a joblib file, a folder with one, or what MLflow saved.

    Raises ArtefactError or CardError with what to do where nothing of these is there, or it cannot be read.
    """
    return _source_of(path)(path, options)


def _source_of(path: Path) -> Callable[[Path, AddOptions], AbstractContextManager[Candidate]]:
    if _mlflow_folder(path) is not None:
        return mlflow_source
    if path.is_dir():
        return folder_source
    return skops_source if is_skops(path) else joblib_source


@contextmanager
def joblib_source(path: Path, options: AddOptions) -> Iterator[Candidate]:
    """Yield the candidate of a joblib file; a card and reference rows beside it are taken where none are named."""
    if not path.exists():
        raise ArtefactError(f"There is no file {path}: check the path.")
    card = options.card or _beside(path, CARD_FILE)
    reference = options.reference or _beside(path, REFERENCE_FILE)
    sha256 = None if card is None else Card.load(card).sha256
    with assembled(path, preprocessor=options.preprocessor, code=options.code, sha256=sha256) as artefact:
        if card is None:
            package = infer_package(
                artefact,
                reference,
                options.changes(),
                without=options.scores,
                csv_options=options.csv,
                complete=_completing(options, reference),
            )
        else:
            package = read_package(
                artefact,
                card,
                reference,
                options.changes(),
                answers=options.no_features(),
                csv_options=options.csv,
                complete=_completing(options, reference),
                is_assembled=artefact != path,
            )
        yield Candidate(package, artefact, reference)


@contextmanager
def skops_source(path: Path, options: AddOptions) -> Iterator[Candidate]:
    """Yield the candidate of a skops file, which is written anew as a joblib file; a card beside it is not its own."""
    with joblib_of_skops(path, trusted=[*HARMLESS, *options.trust]) as bare, joblib_source(bare, options) as candidate:
        yield candidate


@contextmanager
def folder_source(path: Path, options: AddOptions) -> Iterator[Candidate]:
    """Yield the candidate of a folder that holds `model.joblib`, with the card and the rows beside it."""
    if not (path / MODEL_FILE).exists():
        raise ArtefactError(f"{path} holds neither {MODEL_FILE} nor {MLMODEL}: name the file, or its folder.")
    with joblib_source(path / MODEL_FILE, options) as candidate:
        yield candidate


@contextmanager
def mlflow_source(path: Path, options: AddOptions) -> Iterator[Candidate]:
    """Yield the candidate of a folder that MLflow saved, or of its MLmodel file: its signature makes the card."""
    from shared.packages.mlflow.folder import joblib_file, read_mlflow_folder  # heavy, and rarely needed
    from shared.packages.mlflow.package import mlflow_package

    folder = read_mlflow_folder(_mlflow_folder(path) or path)
    with (
        joblib_file(folder, trust=options.trust) as bare,
        assembled(bare, preprocessor=options.preprocessor, code=options.code) as artefact,
    ):
        reference, changes = options.reference, options.changes()
        if options.card is None:
            package = mlflow_package(
                folder,
                artefact,
                reference,
                changes,
                without=options.scores,
                csv_options=options.csv,
                complete=_completing(options, reference),
            )
        else:
            package = read_package(
                artefact,
                options.card,
                reference,
                changes,
                answers=options.no_features(),
                csv_options=options.csv,
                complete=_completing(options, reference),
            )
        yield Candidate(package, artefact, reference)


def _completing(options: AddOptions, reference: Path | None) -> Complete:
    """Return a function that adds the derived features of a contract to reference rows as callers send them."""
    if options.contract is None or reference is None:
        return as_they_are
    from shared.packages.sources.derived_rows import with_derived  # needs numpy

    return partial(with_derived, contract=read_contract(options.contract), source=reference)


def _mlflow_folder(path: Path) -> Path | None:
    """Return the folder that MLflow saved, if the path is one or its MLmodel file."""
    folder = path.parent if path.name == MLMODEL else path
    return folder if (folder / MLMODEL).is_file() else None


def _beside(artefact: Path, name: str) -> Path | None:
    path = artefact.with_name(name)
    return path if path.is_file() else None

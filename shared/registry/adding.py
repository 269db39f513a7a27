"""The model registry: immutable versions, movable aliases, and the packages that they stand for.

A version is registered in this order: check, prove a scorer, write the package, and last the row in the database.
Whatever breaks in between leaves no half-registered model, only a folder that the same command takes over.
"""

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shared.cards.card import Card
from shared.cards.examples import is_of_people
from shared.cards.validator import odd_features
from shared.config.settings import get_settings
from shared.csv.format import Given
from shared.errors import ArtefactError, CardError, Conflict, GuichetError
from shared.observability.audit import MODEL_ADDED, audit
from shared.packages.agreement import check_agreement, with_classes
from shared.packages.assembly import assembled
from shared.packages.contract import apply_contract
from shared.packages.fetching import local_folder
from shared.packages.libraries import library_versions
from shared.packages.package import (
    CARD_FILE,
    MODEL_FILE,
    REFERENCE_FILE,
    Package,
    infer_package,
    is_complete,
    read_package,
    references_of,
    sha256_of,
    version_advice,
    write_package,
)
from shared.packages.sample import read_rows
from shared.registry.acceptance import learn
from shared.registry.loading import LoadedModel, as_in_a_worker
from shared.registry.score_check import (
    ExpectedScores,
    check_probabilities,
    compare_scores,
    read_known_scores,
    without_refused,
)
from shared.registry.versions import CHAMPION, NAME, NAME_RULE, list_versions, promote
from shared.scoring.scorers import PipelineScorer
from shared.scoring.scores import response_reader
from shared.scoring.selection import choose
from shared.tables import ModelAlias, ModelVersion

TOLD_ROWS = 20  # of the reference rows that the model refuses, so many are named
MLMODEL = "MLmodel"  # what makes a folder one that MLflow saved

log = logging.getLogger(__name__)


def add(
    session: Session,
    artefact: Path,
    *,
    reference: Path | None = None,
    card: Path | None = None,
    name: str | None = None,
    version: int | None = None,
    target: str | None = None,
    threshold: float | None = None,
    labels: Mapping[str, str] | None = None,
    probability: str | None = None,
    alias: str | None = None,
    task: str | None = None,
    contract: Path | None = None,
    scores: str | None = None,
    preprocessor: Path | None = None,
    code: Path | None = None,
    trust: Sequence[str] = (),
    skip_bad: bool = False,
    uri: str | None = None,
    models_dir: Path | None = None,
    given: Given | None = None,
) -> ModelVersion:
    """Register a joblib file as a new immutable version; its card is read from `card`, or inferred from `reference`.

    `artefact` may also be a folder that holds `model.joblib`, or one that MLflow saved
    (shared/packages/mlflow/folder.py). A `model.json` and a `reference.jsonl` beside the artefact are taken when none
    are named. The version counts on from the last one; adding the same model with the same card again returns the
    version that it has. `contract` is a file with the words and rules of a client, which the card takes over
    (shared/packages/contract.py); `scores` is the column of the reference rows with the scores that the model gave
    where it was trained, and must give here. `given` is what is known of how the file of reference rows is written; the
    rest is detected. `preprocessor` is the joblib file of a fitted transformer that comes before the model, `code` a
    file or folder of modules that they need; both become part of the registered file (shared/packages/assembly.py).
    `trust` names the types of a skops file that may be read beside those that skops knows. `skip_bad` leaves reference
    rows that break the contract out of the model's sample; known scores are compared on them all the same. `uri` is
    where the whole package was fetched from, and can be again (shared/packages/fetching.py). Raises ArtefactError,
    CardError, or Conflict when the version is another model's.
    """
    mlflow = _mlflow_folder(artefact)
    if mlflow is None and artefact.is_dir():
        if not (artefact / MODEL_FILE).exists():
            raise ArtefactError(f"{artefact} holds neither {MODEL_FILE} nor {MLMODEL}: name the file, or its folder.")
        artefact = artefact / MODEL_FILE
    if not artefact.exists():
        raise ArtefactError(f"There is no file {artefact}: check the path.")
    if name is not None and not NAME.fullmatch(name):
        raise CardError(f"{name[:70]!r} cannot be a model's name: {NAME_RULE}.")
    if mlflow is None:
        card = card or _beside(artefact, CARD_FILE)
        reference = reference or _beside(artefact, REFERENCE_FILE)
    chosen = {
        "name": name,
        "version": version,
        "target": target,
        "threshold": threshold,
        "task": task,
        "labels": dict(labels) if labels else None,
        "probability": probability,
        "decided_by": None if threshold is None else "probability",  # and not as the model itself would
    }
    changes = {key: value for key, value in chosen.items() if value is not None}
    if target is not None and target == scores:
        raise CardError(f"The column {target[:70]!r} cannot be the target and the model's scores: name another one.")
    parts = {"preprocessor": preprocessor, "code": code}
    with _package(artefact, mlflow, reference, card, changes, scores, given, parts, trust) as (package, file):
        if target is not None and reference is not None:
            from shared.csv.targets import check_answers  # heavy, and most models come with a card

            given_rows = package.given_rows or read_rows(reference)
            check_answers(package.card, target, (row.get(target) for row in given_rows.rows), given_rows.numbers)
        proof = package.reference
        if contract is not None:
            read = package.given_rows.rows if reference is not None and package.given_rows is not None else ()
            package = apply_contract(package, contract, but=changes.keys(), rows=read, skip_bad=skip_bad)
            if len(package.reference) == len(proof):
                proof = package.reference  # with the contract's types
        known = None if scores is None else read_known_scores(package.given_rows if reference else None, scores)
        return _publish(
            session,
            package,
            file,
            models_dir=models_dir,
            alias=alias,
            keep_version=version is not None,
            known=known,
            proof=proof,
            uri=uri,
            left_out=_left_out(package) if reference is not None else (),
            # Other hosts fetch the rows as they lie there: more of them, perhaps, and written otherwise.
            source=[sha256_of(reference)] if uri is not None and reference is not None else (),
        )


def register(
    session: Session, package: Package, *, alias: str | None = None, models_dir: Path | None = None
) -> ModelVersion:
    """Register a model that was trained in this process, as the next free version from its card's on.

    The SHA-256 and the library versions in the card are filled in here.
    """
    import joblib  # heavy: most of the registry does without

    with tempfile.TemporaryDirectory() as folder:
        artefact = Path(folder) / MODEL_FILE
        joblib.dump(package.estimator, artefact)
        facts = {"sha256": sha256_of(artefact), "libraries": library_versions(package.estimator)}
        made = Package(package.card.model_copy(update=facts), package.estimator, package.reference)
        return _publish(session, made, artefact, models_dir=models_dir, alias=alias, keep_version=False)


@contextmanager
def _package(
    artefact: Path,
    mlflow: Path | None,
    reference: Path | None,
    card: Path | None,
    changes: Mapping[str, Any],
    scores: str | None,
    given: Given | None,
    parts: Mapping[str, Path | None],
    trust: Sequence[str],
) -> Iterator[tuple[Package, Path]]:
    """Yield a model with its card, and the joblib file to publish, which may be there only for the time."""
    answers = [name for name in (changes.get("target"), scores) if name is not None]
    if mlflow is None:
        known = None if card is None else Card.load(card).sha256
        with assembled(artefact, preprocessor=parts["preprocessor"], code=parts["code"], sha256=known) as file:
            if card is not None:
                package = read_package(
                    file, card, reference, changes, answers=answers, given=given, is_assembled=file != artefact
                )
            else:
                package = infer_package(file, reference, changes, without=scores, given=given)
            yield package, file
        return
    from shared.packages.mlflow.folder import joblib_file, read_mlflow_folder  # heavy, and rarely needed
    from shared.packages.mlflow.package import mlflow_package

    folder = read_mlflow_folder(mlflow)
    with (
        joblib_file(folder, trust=trust) as bare,
        assembled(bare, preprocessor=parts["preprocessor"], code=parts["code"]) as file,
    ):
        if card is not None:
            yield read_package(file, card, reference, changes, answers=answers, given=given), file
        else:
            yield mlflow_package(folder, file, reference, changes, without=scores, given=given), file


def _mlflow_folder(artefact: Path) -> Path | None:
    """Return the folder that MLflow saved, if the path is one or its MLmodel file."""
    folder = artefact.parent if artefact.name == MLMODEL else artefact
    return folder if (folder / MLMODEL).is_file() else None


def _beside(artefact: Path, name: str) -> Path | None:
    path = artefact.with_name(name)
    return path if path.is_file() else None


def _publish(
    session: Session,
    package: Package,
    artefact: Path,
    *,
    models_dir: Path | None,
    alias: str | None,
    keep_version: bool,
    known: ExpectedScores | None = None,
    proof: Sequence[dict[str, Any]] = (),
    uri: str | None = None,
    left_out: Sequence[str] = (),
    source: Sequence[str] = (),
) -> ModelVersion:
    models_dir = models_dir or get_settings().models
    check_agreement(package.card, package.estimator)
    # The slow part comes before the first query: no transaction is open while the model is asked.
    with as_in_a_worker():
        accepted = learn(package)
    if len(proof) == len(package.reference):  # else rows that break a contract are proved as well
        known = None if known is None else without_refused(known, accepted.refused)
        proof = accepted.package.reference
    refused = [_refused_row(package, place) for place in accepted.refused]
    package = accepted.package
    card = with_classes(package.card, package.estimator)
    card, report = _chosen_scorer(card, package, known, proof)
    if left_out:
        report["left_out"] = list(left_out)  # columns of the reference rows that are no features
    if refused:
        report["refused_rows"] = {
            "count": len(refused),
            "rows": refused[:TOLD_ROWS],
        }
    if not keep_version:
        card = card.model_copy(update={"version": _free_version(session, card, models_dir)})
    row = session.scalar(
        select(ModelVersion).where(ModelVersion.name == card.name, ModelVersion.version == card.version)
    )
    if row is not None:
        _check_same(card, row)
        if "scores" in report:
            row.scorer = row.scorer | {"scores": report["scores"]}
        if not is_complete(local_folder(row, models_dir), row.sha256, references_of(row)):
            folder = write_package(models_dir, Card.model_validate(row.card), artefact, package.reference)
            row.scorer = row.scorer | {"reference_sha256": [sha256_of(folder / REFERENCE_FILE), *source]}
    else:
        folder = write_package(models_dir, card, artefact, package.reference)
        report["reference_sha256"] = [sha256_of(folder / REFERENCE_FILE), *source]
        row = _insert(session, card, uri=uri or folder.relative_to(models_dir).as_posix(), report=report)
    if alias is None and not session.scalar(select(ModelAlias.id).where(ModelAlias.name == card.name).limit(1)):
        alias = CHAMPION  # a model's first version serves at once; later ones wait to be promoted
    if alias is not None:
        promote(session, card.name, card.version, alias)
    return row


def _refused_row(package: Package, place: int) -> str:
    """Name a reference row by its line in the file, with what may be why the model refuses it."""
    where = package.place_of(place)
    why = odd_features(package.card, package.reference[place])[1]
    return f"{where} ({why})" if why else where


def _left_out(package: Package) -> list[str]:
    """Return the columns of the reference rows that are none of the model's."""
    known = {feature.name for feature in package.card.row_features}
    rows = package.given_rows.rows if package.given_rows is not None else []
    return [column for column in (rows[0] if rows else ()) if column not in known]


def _chosen_scorer(
    card: Card, package: Package, known: ExpectedScores | None, proof: Sequence[dict[str, Any]]
) -> tuple[Card, dict[str, Any]]:
    """Return the card with what decides, and the report on the chosen scorer, with how far off known scores are.

    `proof` holds the rows of the known scores, also those that break a client's rules: the model scores them all.
    """
    advice = version_advice(card.libraries)
    try:
        with as_in_a_worker():
            choice = choose(card, package.estimator, package.reference)
            card, report = choice.card, choice.report
            report["reference_rows"] = len(package.reference)
            check_probabilities(card, package)
            if explanation := _explanation(card, package):
                report["explanation"] = explanation
            if known is not None:
                scored = Package(card, package.estimator, list(proof), package.given_rows)
                report["scores"] = compare_scores(card, scored, known)
            return card, report
    except ArtefactError as error:
        # Who adds a model may read what it says; logs may not, since it may hold values of a row.
        words = str(error.__cause__ or "").strip().rstrip(".")
        told = f"{error.detail} It says: {words[:300]}." if words else error.detail
        raise ArtefactError(told if not advice or told.endswith(advice) else f"{told} {advice}") from error
    except GuichetError:
        raise
    except Exception as error:  # the estimator is anyone's code
        raise ArtefactError(
            f"The model cannot score its own reference rows ({type(error).__name__}: {error}): check that they have "
            f"the types and the columns that it was trained on. {advice}".rstrip()
        ) from error


def _explanation(card: Card, package: Package) -> dict[str, str]:
    """Return how rows are explained, as `method`, or why they cannot be, as `refused`; nothing where that fails."""
    from shared.explanations.attribution import NotExplainable  # heavy: most of the registry does without
    from shared.explanations.explain import method_of

    scorer = PipelineScorer(card, package.estimator, response_reader(card, package.estimator))
    try:
        return {"method": method_of(LoadedModel(card, package.estimator, scorer, package.reference))}
    except NotExplainable as reason:
        return {"refused": str(reason)}
    except Exception as error:  # noqa: BLE001 - the estimator is anyone's code, and scores all the same
        log.warning("how %s is explained could not be found out (%s)", card.name, type(error).__name__)
        return {}


def _free_version(session: Session, card: Card, models_dir: Path) -> int:
    """Return the version that this very model has already, or else the next one that is nobody's."""
    rows = list_versions(session, card.name)
    for row in rows:
        if row.sha256 == card.sha256 and _same_card(card.model_copy(update={"version": row.version}), row):
            return row.version
    number = max([card.version, *(row.version + 1 for row in rows)])
    # A folder without a row is left over from another database or a crash: the same artefact is taken over.
    while (path := models_dir / card.name / str(number) / MODEL_FILE).exists() and sha256_of(path) != card.sha256:
        number += 1
    return number


def _same_card(card: Card, row: ModelVersion) -> bool:
    """Tell whether a card says what was registered; when and with what it was trained does not matter.

    Nor does what decides, as long as the threshold is the same: earlier cards left that out. Nor do examples that an
    earlier release took from reference rows.
    """
    told = {"trained_at", "libraries", "decided_by"}
    registered = Card.model_validate(row.card)
    if is_of_people(registered):
        told.add("notes")
        card, registered = (
            each.model_copy(update={"features": [one.model_copy(update={"example": None}) for one in each.features]})
            for each in (card, registered)
        )
    return card.model_dump(exclude=told) == registered.model_dump(exclude=told)


def _check_same(card: Card, row: ModelVersion) -> None:
    same_artefact = row.sha256 == card.sha256
    if same_artefact and _same_card(card, row):
        return
    what = "another card" if same_artefact else f"the artefact {row.sha256[:12]}…, not {card.sha256[:12]}…"
    raise Conflict(
        f"{card.name}@{card.version} is registered with {what}, and versions are immutable: leave out the version "
        "to register this one under the next number."
    )


def _insert(session: Session, card: Card, *, uri: str, report: dict[str, Any]) -> ModelVersion:
    row = ModelVersion(
        name=card.name,
        version=card.version,
        sha256=card.sha256,
        uri=uri,
        card=card.model_dump(mode="json", exclude_none=True),
        scorer=report,
    )
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError as error:
        raise Conflict(f"{card.name}@{card.version} has just been registered by someone else: try again.") from error
    audit(session.connection(), MODEL_ADDED, f"{card.name}@{card.version}", details={"sha256": card.sha256, "uri": uri})
    return row

"""The model registry: immutable versions, movable aliases, and the packages that they stand for.

A version is registered in this order: read a candidate from its source (shared/packages/sources/candidates.py), check
it, prove a scorer, write the package, and last the row in the database.
Whatever breaks in between leaves no half-registered model, only a folder that the same command takes over.
"""

import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shared.cards.card import Card
from shared.cards.examples import is_of_people
from shared.cards.validator import odd_features
from shared.comparison.gate import Gate
from shared.config.settings import get_settings
from shared.errors import ArtefactError, CardError, Conflict, GuichetError
from shared.faults import Fault
from shared.monitoring.counting import SAMPLE, profile_of, store_profile
from shared.monitoring.drift.profiles import Profile
from shared.observability.audit import MODEL_ADDED, audit
from shared.packages.agreement import check_agreement, with_classes
from shared.packages.artefacts.libraries import library_versions
from shared.packages.contract import apply_contract
from shared.packages.fetching import local_folder
from shared.packages.package import (
    MODEL_FILE,
    REFERENCE_FILE,
    Package,
    is_complete,
    references_of,
    sha256_of,
    version_advice,
    write_package,
)
from shared.packages.sample import read_rows
from shared.packages.sources.candidates import AddOptions, Candidate, open_source
from shared.registry.acceptance import learn
from shared.registry.aliases import Change, promote
from shared.registry.loading import LoadedModel, as_in_a_worker
from shared.registry.score_check import (
    ExpectedScores,
    check_probabilities,
    compare_scores,
    read_expected_scores,
    with_reference_metrics,
    without_refused,
)
from shared.registry.versions import CHAMPION, NAME, NAME_RULE, list_versions
from shared.scoring.batch import score_rows
from shared.scoring.outputs import Output
from shared.scoring.scorers import PipelineScorer
from shared.scoring.scores import response_reader
from shared.scoring.selection import choose
from shared.tables import ModelAlias, ModelArchive, ModelVersion

_OPERATOR = Change()  # whoever runs this process
TOLD_ROWS = 20  # of the reference rows that the model refuses, so many are named

_TAKE_TURN = text("SELECT pg_try_advisory_xact_lock(7236003, hashtext(:name))")  # any number that nobody else uses
_TURN_SECONDS = 900.0  # as long as the end of a proof is waited for
_TURN_PAUSE = 0.1

log = logging.getLogger(__name__)


def add(
    session: Session,
    path: Path,
    options: AddOptions | None = None,
    *,
    uri: str | None = None,
    models_dir: Path | None = None,
    gate: Gate | None = None,
) -> ModelVersion:
    """Register the model at a path as a new immutable version of its name, and return its row.

    The path is a joblib file, a folder that holds `model.joblib`, or one that MLflow saved; `options` are what the
    operator says of it (shared/packages/sources/candidates.py). The version counts on from the last one; adding the
    same model with the same card again returns the version that it has. `uri` is where the whole package was fetched
    from, and can be again (shared/packages/fetching.py). Raises ArtefactError, CardError, or Conflict when the version
    is another model's, or may not pass the gate to the alias that the options name.
    """
    options = options or AddOptions()
    with prove(path, options) as proved:
        directory = models_dir or get_settings().models
        return publish(session, proved, options, uri=uri, models_dir=directory, gate=gate)


@contextmanager
def prove(path: Path, options: AddOptions) -> Iterator["Proved"]:
    """Yield the model at a path once its scorer gives its own answers; its artefact is there only for the time.

    That needs no database, and may run in a process of its own (shared/registry/proof.py). Raises ArtefactError or
    CardError.
    """
    _check_options(options)
    with open_source(path, options) as candidate:
        package, proof = candidate.package, candidate.package.reference
        if options.target is not None and candidate.reference is not None:
            from shared.csv.targets import check_targets  # heavy, and most models come with a card

            sample_rows = package.file_rows or read_rows(candidate.reference)
            check_targets(
                package.card, options.target, (row.get(options.target) for row in sample_rows.rows), sample_rows.numbers
            )
        if options.contract is not None:
            package = _with_contract(candidate, options, options.contract)
            if len(package.reference) == len(proof):
                proof = package.reference  # with the contract's types
        expected = None
        if options.scores is not None:
            file_rows = None if candidate.reference is None else package.file_rows
            expected = read_expected_scores(file_rows, options.scores, proof)
        if options.metrics:
            package = replace(package, card=package.card.model_copy(update={"metrics": dict(options.metrics)}))
        target = None if candidate.reference is None else options.target
        yield _prove(replace(candidate, package=package), expected, target)


def register(
    session: Session, package: Package, *, alias: str | None = None, models_dir: Path | None = None
) -> ModelVersion:
    """Register a model that was trained in this process, as the next free version from its card's on.

    The SHA-256 and the library versions in the card are filled in here.
    """
    with prove_package(package) as proved:
        return publish(
            session, proved, AddOptions(alias=alias), uri=None, models_dir=models_dir or get_settings().models
        )


@contextmanager
def prove_package(package: Package) -> Iterator["Proved"]:
    """Yield a model that was trained in this process once its scorer gives its own answers, as `prove` does."""
    import joblib  # heavy: most of the registry does without

    with tempfile.TemporaryDirectory() as folder:
        artefact = Path(folder) / MODEL_FILE
        joblib.dump(package.estimator, artefact)
        facts = {"sha256": sha256_of(artefact), "libraries": library_versions(package.estimator)}
        made = Package(package.card.model_copy(update=facts), package.estimator, package.reference)
        yield _prove(Candidate(made, artefact), None)


@dataclass(frozen=True, slots=True)
class Proved:
    """A model whose scorer gives its own answers, with the card and the rows to register."""

    artefact: Path  # the joblib file to keep
    card: Card
    reference: list[dict[str, Any]]  # the rows that the model takes
    report: dict[str, Any]  # on the scorer and what was found on the way: ModelVersion.scorer
    source: Path | None = None  # the file that the rows were read from, if there was one
    profile: Profile | None = None  # how these rows and their scores are spread; None: it could not be made


def _check_options(options: AddOptions) -> None:
    if options.name is not None and not NAME.fullmatch(options.name):
        raise CardError(f"{options.name[:70]!r} cannot be a model's name: {NAME_RULE}.")
    if options.target is not None and options.target == options.scores:
        raise CardError(
            f"The column {options.target[:70]!r} cannot be the target and the model's scores: name another one."
        )


def _with_contract(candidate: Candidate, options: AddOptions, contract: Path) -> Package:
    package = candidate.package
    file_rows = None if candidate.reference is None else package.file_rows
    rows = () if file_rows is None else file_rows.rows
    return apply_contract(package, contract, but=options.changes().keys(), rows=rows, skip_bad=options.skip_bad)


def _prove(candidate: Candidate, expected: ExpectedScores | None, target: str | None = None) -> Proved:
    """Learn the accepted values of a candidate's model, choose its scorer, and compare the expected scores.

    `target` is the column of the reference rows with the true answers; a card without metrics gets those of these rows.

    That is slow and needs no database: no transaction is open meanwhile.
    """
    package = candidate.package
    check_agreement(package.card, package.estimator)
    with as_in_a_worker():
        accepted = learn(package)
    if expected is not None and len(expected.rows) == len(package.reference):
        # Else rows that break a contract are proved as well.
        expected = replace(without_refused(expected, accepted.refused), rows=accepted.package.reference)
    refused = [_refused_row(package, place) for place in accepted.refused]
    package = accepted.package
    card = with_classes(package.card, package.estimator)
    card, report = _chosen_scorer(card, package, expected)
    outputs = _reference_outputs(card, package)
    profile = None if outputs is None else _profile(card, package, outputs)
    if target is not None and outputs is not None:
        card = with_reference_metrics(card, package, outputs, target)
    if left_out := _left_out(candidate):
        report["left_out"] = left_out
    if refused:
        report["refused_rows"] = {
            "count": len(refused),
            "rows": refused[:TOLD_ROWS],
        }
    return Proved(candidate.artefact, card, package.reference, report, candidate.reference, profile)


def publish(
    session: Session,
    proved: Proved,
    options: AddOptions,
    *,
    uri: str | None,
    models_dir: Path,
    change: Change = _OPERATOR,
    gate: Gate | None = None,
) -> ModelVersion:
    """Write the package and its row, unless this very model has them already, and move the alias.

    `change` tells who adds it.
    """
    card, report, artefact = proved.card, proved.report, proved.artefact
    _take_turn(session, card.name)
    # Other hosts fetch the rows as they lie there: more of them, perhaps, and written otherwise.
    fetched = proved.source if uri is not None else None
    source = [] if fetched is None else [sha256_of(fetched)]
    if options.version is None:
        card = card.model_copy(update={"version": _free_version(session, card, models_dir)})
    row = session.scalar(
        select(ModelVersion).where(ModelVersion.name == card.name, ModelVersion.version == card.version)
    )
    is_there = row is not None
    if row is not None:
        _check_same(card, row)
        _check_kept(session, row)
        if "scores" in report:
            row.scorer = row.scorer | {"scores": report["scores"]}
        if not is_complete(local_folder(row, models_dir), row.sha256, references_of(row)):
            folder = write_package(models_dir, Card.model_validate(row.card), artefact, proved.reference)
            row.scorer = row.scorer | {"reference_sha256": [sha256_of(folder / REFERENCE_FILE), *source]}
    else:
        folder = write_package(models_dir, card, artefact, proved.reference)
        report["reference_sha256"] = [sha256_of(folder / REFERENCE_FILE), *source]
        where = uri or folder.relative_to(models_dir).as_posix()
        row = _insert(session, card, uri=where, report=report, change=change)
        if proved.profile is not None:
            store_profile(session.connection(), row.id, proved.profile, source=SAMPLE)
    alias = options.alias
    if (
        alias is None
        and not options.is_candidate
        and not session.scalar(select(ModelAlias.id).where(ModelAlias.name == card.name).limit(1))
    ):
        alias = CHAMPION  # a model's first version serves at once; later ones wait to be promoted
    if alias is not None:
        try:
            promote(session, card.name, card.version, alias, change, gate=gate)
        except Conflict as refusal:
            if is_there:
                raise
            raise Conflict(
                f"{refusal.detail} Nothing was registered: add it without --alias, replay it, and promote it then."
            ) from refusal
    return row


def _take_turn(session: Session, name: str) -> None:
    """Have versions of one name registered one after the other, until the end of the transaction.

    Two at once would choose the same number, on two hosts each with a package of its own under it. SQLite has one
    writer anyway. Raises Conflict where the other does not come to its end.
    """
    if session.get_bind().dialect.name != "postgresql":
        return
    deadline = time.monotonic() + _TURN_SECONDS
    while not session.scalar(_TAKE_TURN, {"name": name}):
        if time.monotonic() > deadline:
            raise Conflict(f"Another version of {name} has been registered for a quarter of an hour: try again.")
        time.sleep(_TURN_PAUSE)


def _refused_row(package: Package, place: int) -> str:
    """Name a reference row by its line in the file, with what may be why the model refuses it."""
    where = package.place_of(place)
    why = odd_features(package.card, package.reference[place])[1]
    return f"{where} ({why})" if why else where


def _left_out(candidate: Candidate) -> list[str]:
    """Return the columns of the reference rows' file that are not the model's."""
    file_rows = candidate.package.file_rows
    if candidate.reference is None or file_rows is None or not file_rows.rows:
        return []
    names = {feature.name for feature in candidate.package.card.row_features}
    return [column for column in file_rows.rows[0] if column not in names]


def _chosen_scorer(card: Card, package: Package, expected: ExpectedScores | None) -> tuple[Card, dict[str, Any]]:
    """Return the card with what decides, and the report on the chosen scorer, with how far off known scores are."""
    advice = version_advice(card.libraries)
    try:
        with as_in_a_worker():
            choice = choose(card, package.estimator, package.reference)
            card, report = choice.card, choice.report
            report["reference_rows"] = len(package.reference)
            check_probabilities(card, package)
            if explanation := _explanation(card, package):
                report["explanation"] = explanation
            if expected is not None:
                report["scores"] = compare_scores(card, package.estimator, expected)
            return card, report
    except ArtefactError as error:
        # Who adds a model may read what it says; logs may not, since it may hold values of a row.
        words = str(error.__cause__ or "").strip().rstrip(".")
        message = f"{error.detail} It says: {words[:300]}." if words else error.detail
        raise ArtefactError(message if not advice or message.endswith(advice) else f"{message} {advice}") from error
    except GuichetError:
        raise
    except Exception as error:  # the estimator is anyone's code
        raise ArtefactError(
            f"The model cannot score its own reference rows ({type(error).__name__}: {error}): check that they have "
            f"the types and the columns that it was trained on. {advice}".rstrip()
        ) from error


def _explanation(card: Card, package: Package) -> dict[str, str]:
    """Return the explanation `method`, or the reason against one, `refused`; empty after an error."""
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


def _reference_outputs(card: Card, package: Package) -> list[Output | Fault] | None:
    """Return the outputs of the reference rows; None where there are no rows, or after an error."""
    if not package.reference:
        return None
    scorer = PipelineScorer(card, package.estimator, response_reader(card, package.estimator))
    try:
        with as_in_a_worker():
            return score_rows(LoadedModel(card, package.estimator, scorer, package.reference), package.reference)
    except Exception as error:  # noqa: BLE001 - the estimator is anyone's code; counting makes the profile later
        log.warning("the reference rows of %s could not be scored yet (%s)", card.name, type(error).__name__)
        return None


def _profile(card: Card, package: Package, outputs: list[Output | Fault]) -> Profile | None:
    """Return the bins that scored rows are counted in; None after an error."""
    try:
        return profile_of(card, package.reference, outputs)
    except Exception as error:  # noqa: BLE001 - no reason not to serve the model; counting makes the profile later
        log.warning("the profile of %s could not be made yet (%s)", card.name, type(error).__name__)
        return None


def _free_version(session: Session, card: Card, models_dir: Path) -> int:
    """Return the version that this very model has already, or else the next one that is nobody's."""
    rows = list_versions(session, card.name)
    for row in rows:
        if row.sha256 == card.sha256 and _same_card(card.model_copy(update={"version": row.version}), row):
            return row.version
    numbers = session.scalars(select(ModelVersion.version).where(ModelVersion.name == card.name))
    number = max([card.version, *(version + 1 for version in numbers)])  # also those of deleted versions
    # A folder without a row is left over from another database or a crash: the same artefact is taken over.
    while (path := models_dir / card.name / str(number) / MODEL_FILE).exists() and sha256_of(path) != card.sha256:
        number += 1
    return number


def _same_card(card: Card, row: ModelVersion) -> bool:
    """Return whether a card equals the registered one; time and libraries of the training do not count.

    Nor does what decides, as long as the threshold is the same: earlier cards left that out. Nor do examples that an
    earlier release took from reference rows, nor the metrics of these rows: they follow from the model and the rows.
    """
    ignored = {"trained_at", "libraries", "decided_by", "metrics_of"}
    registered = Card.model_validate(row.card)
    card, registered = (
        each.model_copy(update={"metrics": {}}) if each.metrics_of == "reference" else each
        for each in (card, registered)
    )
    if is_of_people(registered):
        ignored.add("notes")
        card, registered = (
            each.model_copy(update={"features": [one.model_copy(update={"example": None}) for one in each.features]})
            for each in (card, registered)
        )
    return card.model_dump(exclude=ignored) == registered.model_dump(exclude=ignored)


def _check_same(card: Card, row: ModelVersion) -> None:
    same_artefact = row.sha256 == card.sha256
    if same_artefact and _same_card(card, row):
        return
    what = "another card" if same_artefact else f"the artefact {row.sha256[:12]}…, not {card.sha256[:12]}…"
    raise Conflict(
        f"{card.name}@{card.version} is registered with {what}, and versions are immutable: leave out the version "
        "to register this one under the next number."
    )


def _check_kept(session: Session, row: ModelVersion) -> None:
    archived = session.get(ModelArchive, row.id)
    if archived is not None and archived.deleted_at is not None:
        raise Conflict(
            f"{row.name}@{row.version} was deleted, and its number is not given again: leave out the version to "
            "register the model under the next one."
        )


def _insert(
    session: Session, card: Card, *, uri: str, report: dict[str, Any], change: Change = _OPERATOR
) -> ModelVersion:
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
    audit(
        session.connection(),
        MODEL_ADDED,
        f"{card.name}@{card.version}",
        actor=change.by,
        details={"sha256": card.sha256, "uri": uri},
        request_id=change.request_id,
    )
    return row

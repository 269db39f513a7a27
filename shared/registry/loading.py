"""A registered version in memory: checked against its SHA-256 and card, and its scorer proved again."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy.orm import Session

from shared.cards.card import Card
from shared.config.settings import get_settings
from shared.errors import ArtefactError, CardError
from shared.packages.agreement import with_classes
from shared.packages.fetching import ensure_local, local_folder
from shared.packages.package import (
    CARD_FILE,
    MODEL_FILE,
    REFERENCE_FILE,
    check_reference,
    load_estimator,
    references_of,
    warn_version_mismatch,
)
from shared.packages.sample import canonical_rows, read_rows
from shared.registry.versions import resolve
from shared.scoring.scorers import PipelineScorer
from shared.scoring.scores import response_reader
from shared.scoring.selection import Scorer, build, decide
from shared.scoring.threads import one_thread
from shared.tables import ModelVersion
from shared.validation_errors import first_faults

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model version in memory, ready to score."""

    card: Card
    estimator: Any
    scorer: Scorer
    reference: list[dict[str, Any]]


def load(model_version: ModelVersion, models_dir: Path) -> LoadedModel:
    """Return a registered version ready to score; the SHA-256 in the database is checked before unpickling.

    Its registered scorer is built and proved again on the reference rows; if it is no longer exact (another
    library version, say), the pipeline itself serves and a warning is logged.
    Raises ArtefactError or CardError with what to do.
    """
    folder = local_folder(model_version, models_dir)
    card = Card.model_validate(model_version.card | {"sha256": model_version.sha256})
    check_reference(folder, references_of(model_version))
    estimator = load_estimator(folder, card)
    card = with_classes(card, estimator)
    reference = canonical_rows(card, read_rows(folder / REFERENCE_FILE).rows, source=str(folder / REFERENCE_FILE))
    kind = str(model_version.scorer["kind"])
    with as_in_a_worker():
        card = decide(card, estimator, reference)
        try:
            scorer = build(card, estimator, kind, reference)
        except ArtefactError as error:
            if kind == "pipeline":
                raise
            log.warning("%s@%s is scored by its pipeline, not by %s: %s", card.name, card.version, kind, error.detail)
            scorer = build(card, estimator, "pipeline", reference)
    return LoadedModel(card, estimator, scorer, reference)


def by_pipeline(model: LoadedModel) -> LoadedModel:
    """Return the same model, scored by the estimator as it was trained and nothing else."""
    if isinstance(model.scorer, PipelineScorer):
        return model
    reader = response_reader(model.card, model.estimator)
    return replace(model, scorer=PipelineScorer(model.card, model.estimator, reader))


def verify(session: Session, name: str, version: int, *, models_dir: Path | None = None) -> dict[str, Any]:
    """Check a version from file to score and return a report; raise the error of the first failed check."""
    row = resolve(session, name, version)
    store = get_settings().models_uri if models_dir is None else None
    models_dir = models_dir or get_settings().models
    folder = ensure_local(row, models_dir, store)
    try:
        card = Card.model_validate(row.card)
    except ValidationError as error:
        raise CardError(f"The registered card of {name}@{version} is not valid: {first_faults(error)}.") from error
    on_disk = Card.load(folder / CARD_FILE)
    if on_disk != card:
        fields = [key for key in Card.model_fields if getattr(on_disk, key) != getattr(card, key)]
        raise CardError(
            f"{folder / CARD_FILE} is not the card that was registered (it differs in {', '.join(fields)}): restore "
            "it, or add the model again as a new version."
        )
    model = load(row, models_dir)
    return {
        "model": f"{name}@{version}",
        "sha256": row.sha256,
        "features": len(card.features),
        "reference_rows": len(model.reference),
        "scorer": model.scorer.kind,
        "registered_scorer": row.scorer["kind"],
        "other_library_versions": warn_version_mismatch(folder / MODEL_FILE, card.libraries),
    }


@contextmanager
def as_in_a_worker() -> Iterator[None]:
    """Run one piece of work as a worker runs it: one thread, and without a warning that LightGBM gives at each call."""
    with one_thread(), warnings.catch_warnings():
        # LightGBM invents column names for arrays and then misses them, at every call.
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        yield

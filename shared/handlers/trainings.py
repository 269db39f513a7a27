"""Trainings: the jobs `train`. Each is claimed alone, trained in a process of its own, and becomes a candidate version.

The same in both runtimes, as uploads are (registrations.py): what differs is what the process does with the file, and
that no alias is moved, not even for the first version of a model.
"""

import contextlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from shared.config.settings import Settings
from shared.files import read_file
from shared.handlers.registrations import Way, publish_proved, work_on
from shared.jobs import trainings
from shared.jobs.registrations import Upload
from shared.jobs.transitions import Claim

if TYPE_CHECKING:
    from shared.registry.adding import Proved
    from shared.registry.proof import NotProved

log = logging.getLogger(__name__)

CHILD = "shared.handlers.training_process"
PROGRESS, TRAINED = "progress.json", "training.json"  # what the process leaves: how far it has come, and its report


def train(engine: Engine, settings: Settings, held: Claim, *, is_stopping: Callable[[], bool] = lambda: False) -> bool:
    """Train a version from the rows of a claimed job, or end the job as failed with the reason.

    Return whether the job has ended; False: another holds it, or this process stops.
    """
    return work_on(engine, settings, held, TRAININGS, is_stopping=is_stopping)


def _train_apart(
    engine: Engine,
    settings: Settings,
    held: Claim,
    folder: Path,
    files: dict[str, str],
    upload: Upload,
    is_wanted: Callable[[], bool],
) -> "Proved":
    from shared.registry.proof import Limits, NotProved, prove_apart

    limits = Limits(held.timeout_seconds, settings.training_bytes, settings.max_model_bytes)
    last: dict[str, Any] = {}

    def look() -> bool:
        progress = _read_progress(folder)
        if progress is not None and progress != last:
            last.update(progress)
            # A database that is away learns it later.
            with contextlib.suppress(DBAPIError), engine.begin() as connection:
                trainings.store_progress(connection, held, progress)
        return is_wanted()

    try:
        return prove_apart(folder, files, upload.options, limits, is_wanted=look, module=CHILD)
    except NotProved as reason:
        raise _in_words(reason, settings, held) from reason


def _in_words(reason: "NotProved", settings: Settings, held: Claim) -> "NotProved":
    """Return the reason why there is no model, in the words of a training."""
    from shared.registry.proof import NotProved

    if reason.code == "timeout":
        return NotProved(
            "timeout",
            f"the training took longer than {held.timeout_seconds:g} s, and its process was ended: send fewer draws, "
            "estimators or rows, or have TRAINING_SECONDS raised",
        )
    if reason.code == "out_of_memory":
        return NotProved(
            "out_of_memory",
            f"the training took more than {settings.training_bytes / 1e9:.1f} GB of memory: send fewer rows or "
            "columns, leave out `random_forest`, or have TRAINING_BYTES raised",
        )
    if reason.code == "model_crashed":
        return NotProved(
            "training_crashed",
            "the process of the training ended in the middle: try it again, or with fewer estimators",
        )
    return reason


def _read_progress(folder: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        progress: dict[str, Any] = json.loads(read_file(folder / PROGRESS, limit=10_000))
        return progress
    return None


def _publish(engine: Engine, settings: Settings, held: Claim, upload: Upload, proved: "Proved") -> bool:
    from shared.packages.sources.candidates import AddOptions

    report = json.loads(read_file(proved.artefact.with_name(TRAINED)))
    return publish_proved(
        engine,
        settings,
        held,
        upload,
        proved,
        AddOptions(is_candidate=True),
        reason="trained",
        keep=lambda connection: trainings.store_report(connection, held, report),
    )


TRAININGS = Way(_train_apart, _publish)

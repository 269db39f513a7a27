"""The process of a training: `python -m shared.handlers.training_process FOLDER PARENT`.

It reads the rows in the folder, trains, proves the model as any other that is added, and leaves its package and report.
It has limits of time and memory, one thread, and none of the service's settings (shared/registry/proof.py).
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from shared.csv.format import CsvOptions
from shared.handlers.trainings import PROGRESS, TRAINED
from shared.jobs.registrations import DATA
from shared.registry.adding import prove_package
from shared.registry.proof import leave, main
from shared.training.options import TrainingOptions
from shared.training.table import read_table
from shared.training.train import train


def work(folder: Path, files: dict[str, str], options: dict[str, Any], _: int) -> None:
    """Train on the rows in a folder; leave the package and the report there."""
    path = folder / files[DATA]

    def tell(stage: str, done: int, total: int) -> None:
        draft = folder / f"{PROGRESS}.new"
        draft.write_text(json.dumps({"stage": stage, "done": done, "total": total}))
        os.replace(draft, folder / PROGRESS)

    tell("reading", 0, 1)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    chosen = TrainingOptions.load(options["training"])
    csv = options.get("csv")
    table = read_table(path, chosen, None if csv is None else CsvOptions(**csv))
    trained = train(table, chosen, sha256=sha256, tell=tell)
    tell("proving", 0, 1)
    with prove_package(trained.package) as proved:
        (leave(proved, folder) / TRAINED).write_text(json.dumps(trained.report, allow_nan=False))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), work)

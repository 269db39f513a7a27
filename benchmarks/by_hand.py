"""The script that somebody writes with scikit-learn instead of a training: `python -m benchmarks.by_hand`.

    python -m benchmarks.by_hand EXAMPLE rows.csv DRAWS

It reads the file, fits the pipeline of the example once, searches its parameters with so many draws and five folds,
fits the best on all rows, saves it with joblib, and prints the seconds of each as JSON. One thread, a fixed seed.
"""

import importlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
from scipy.stats import loguniform, randint
from sklearn.model_selection import RandomizedSearchCV

from shared.scoring.threads import one_thread

FOLDS = 5
# The ranges that a training draws from for the same estimator, by the step of the example's pipeline.
PARAMETERS: dict[str, dict[str, Any]] = {
    "trees": {
        "trees__learning_rate": loguniform(0.02, 0.2),
        "trees__max_iter": [100, 200, 300],
        "trees__max_leaf_nodes": randint(4, 32),
        "trees__min_samples_leaf": randint(5, 60),
        "trees__l2_regularization": loguniform(1e-3, 10),
    },
    "model": {"model__C": loguniform(1e-3, 1e2)},
}


def train(name: str, path: Path, draws: int) -> dict[str, float]:
    """Train on a file of an example; return the seconds of one fit, and of all together without the imports."""
    began = time.perf_counter()
    script, data = (importlib.import_module(f"examples.{name}.{part}") for part in ("train", "data"))
    frame = pd.read_csv(path)
    target = frame.pop(data.TARGET)
    pipeline = script.pipeline()
    last = pipeline.steps[-1][0]
    scoring = "roc_auc" if target.nunique() == 2 else "neg_root_mean_squared_error"
    with one_thread():
        fitting = time.perf_counter()
        pipeline.fit(frame, target)
        fitted = time.perf_counter()
        search = RandomizedSearchCV(
            pipeline, PARAMETERS[last], n_iter=draws, cv=FOLDS, scoring=scoring, random_state=0, n_jobs=1
        ).fit(frame, target)
    with tempfile.TemporaryDirectory() as folder:
        joblib.dump(search.best_estimator_, Path(folder) / "model.joblib")
    return {"fit_s": fitted - fitting, "seconds": time.perf_counter() - began - (fitted - fitting)}


if __name__ == "__main__":
    print(json.dumps(train(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))))

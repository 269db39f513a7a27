"""MLflow, proven against the real one: folders that it saves are taken in, and its server's answers are ours."""

import importlib
import io
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from examples.frames import records
from tests.interop.conftest import BIN, ClientRunner, Row
from tests.mlflow.cases import requests
from tests.mlflow.server import ask, scoring_server
from tests.support.stack import Stack

pytestmark = pytest.mark.interop

SAVED = Path(__file__).resolve().parent.parent / "mlflow"
TOLERANCE = 1e-6  # what a scorer may differ from the pipeline itself (shared/scoring/parity.py)
ROWS, SEED = 200, 24_601
EXAMPLES = ("attrition", "credit", "energy")

Serve = Callable[[Path], str]


@pytest.fixture(scope="session")
def serve() -> Iterator[Serve]:
    """A function that serves a folder with MLflow's own server, once, and returns its address."""
    addresses: dict[Path, str] = {}
    with ExitStack() as servers:

        def start(folder: Path) -> str:
            if folder not in addresses:
                addresses[folder] = servers.enter_context(scoring_server(folder, python=BIN / "python"))
            return addresses[folder]

        yield start


@pytest.fixture(scope="session")
def frames() -> dict[str, pd.DataFrame]:
    """Fresh rows for each example model."""
    frames_by_name = {}
    for name in EXAMPLES:
        features = importlib.import_module(f"examples.{name}.features").FEATURES
        data = importlib.import_module(f"examples.{name}.data").generate(ROWS, seed=SEED)
        frames_by_name[name] = data[[feature.name for feature in features]]
    return frames_by_name


@pytest.fixture(scope="session")
def folders(
    sync: Stack,
    models_dir: Path,
    frames: dict[str, pd.DataFrame],
    run_client: ClientRunner,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """The example models as the real MLflow saves them; `proba` answers with probabilities."""
    assert sync.url  # it has trained the examples
    folder = tmp_path_factory.mktemp("saved")
    models = [(name, name, "predict") for name in EXAMPLES] + [("proba", "attrition", "predict_proba")]
    run_client(
        "mlflow_save",
        models=[
            {
                "artefact": str(models_dir / name / "1" / "model.joblib"),
                "rows": records(frames[name]),
                "folder": str(folder / own),
                "answers": answers,
            }
            for own, name, answers in models
        ],
    )
    return {own: folder / own for own, *_ in models}


def take_in(stack: Stack, folder: Path, name: str, *more: str) -> str:
    """Take a folder in with the command, once; return the path that serves it."""
    with stack.client() as client:
        if client.get(f"/models/{name}").status_code == 404:
            stack.run("shared.registry", "add", str(folder), "--name", name, *more)
    return f"/models/{name}/invocations"


def test_every_request_is_answered_as_by_the_real_server(stack: Stack, serve: Serve, table: list[Row]) -> None:
    paths = {
        "visitors": take_in(stack, SAVED / "visitors", "visitors"),
        "tariff": take_in(stack, SAVED / "tariff", "tariff", "--reference", str(SAVED / "tariff.csv")),
    }
    recorded = {(entry["model"], entry["name"]): entry for entry in json.loads((SAVED / "answers.json").read_text())}
    count = 0
    for model, name, kind, body in requests():
        theirs = ask(serve(SAVED / model), kind, body)
        ours = ask(stack.url, kind, body, paths[model])
        assert theirs[0] == recorded[model, name]["status"], name  # what the other tests go by is still so
        bent = name.startswith("bent: ")
        assert ours[0] == (400 if bent else theirs[0]), f"{name}: {ours[1]}"
        difference = "both refuse" if ours[0] == theirs[0] != 200 else "MLflow guesses" if bent else ""
        if not difference:
            largest = difference_of(ours[1], theirs[1])
            assert largest <= TOLERANCE, name
            difference = f"{largest:.1e}"
        table.append((f"{stack.runtime} {model}: {name}", str(ours[0]), str(theirs[0]), difference))
        count += 1
    assert count == len(recorded)


@pytest.mark.parametrize("model", EXAMPLES)
def test_model_that_mlflow_saved_predicts_the_same_by_every_form(
    stack: Stack,
    serve: Serve,
    folders: dict[str, Path],
    frames: dict[str, pd.DataFrame],
    table: list[Row],
    model: str,
) -> None:
    path = take_in(stack, folders[model], f"{model}-mlflow")
    rows = records(frames[model])
    names = list(frames[model].columns)
    text = io.StringIO()
    frames[model].to_csv(text, index=False)
    bodies = {
        "dataframe_split": {"columns": names, "data": [[row[name] for name in names] for row in rows]},
        "dataframe_records": rows,
        "inputs": {name: [row[name] for row in rows] for name in names},
        "instances": rows,
    }
    kinds = [("application/json", form, json.dumps({form: body})) for form, body in bodies.items()]
    for kind, form, body in [*kinds, ("text/csv", "CSV", text.getvalue())]:
        theirs = ask(serve(folders[model]), kind, body)
        ours = ask(stack.url, kind, body, path)
        assert (ours[0], theirs[0]) == (200, 200), f"{form}: {ours[1][:300]} {theirs[1][:300]}"
        largest = difference_of(ours[1], theirs[1])
        assert largest <= TOLERANCE, form
        table.append((f"{stack.runtime} {model}: {form}, {ROWS} rows", "200", "200", f"{largest:.1e}"))


def test_probabilities_are_those_of_a_model_that_mlflow_serves_with_predict_proba(
    stack: Stack, serve: Serve, folders: dict[str, Path], frames: dict[str, pd.DataFrame], table: list[Row]
) -> None:
    path = take_in(stack, folders["proba"], "attrition-proba")
    body = {"dataframe_records": records(frames["attrition"])}
    theirs = ask(serve(folders["proba"]), "application/json", json.dumps(body))
    ours = ask(stack.url, "application/json", json.dumps(body | {"params": {"output": "predict_proba"}}), path)
    largest = difference_of(ours[1], theirs[1])
    assert largest <= TOLERANCE
    table.append((f"{stack.runtime} attrition: predict_proba, {ROWS} rows", "200", "200", f"{largest:.1e}"))


def difference_of(ours: str, theirs: str) -> float:
    """Return how far numbers are from each other at most; other values, and their types, must be the same."""
    numbers, expected = (np.asarray(json.loads(text)["predictions"]) for text in (ours, theirs))
    assert numbers.shape == expected.shape
    assert numbers.dtype.kind == expected.dtype.kind
    if numbers.dtype.kind in "bU":
        assert numbers.tolist() == expected.tolist()
        return 0.0
    values: Any = np.abs(numbers - expected)
    return float(values.max())

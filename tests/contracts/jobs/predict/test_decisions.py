"""The class that every route answers is the one that the estimator's own `predict` gives."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sqlalchemy import Engine

from shared.database.engine import session_scope
from shared.errors import ArtefactError, CardError, GuichetError
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import add
from tests.contracts.helpers import wait_for_job, wait_until
from tests.support.brief import prove_briefly
from tests.support.csv_jobs import read_csv, send

NAMES = ["a", "b", "c"]
DRAW = np.random.default_rng(11)
FRAME = pd.DataFrame(DRAW.normal(size=(240, 3)).round(3), columns=NAMES)
NOISE = DRAW.normal(0, 0.7, len(FRAME))
TWO = (FRAME["a"] + FRAME["b"] ** 2 + NOISE > 1.6).astype(int)
THREE = pd.Series(np.digitize(FRAME["a"] - FRAME["b"] + NOISE, [-0.5, 0.8])).map({0: "low", 1: "mid", 2: "top"})
SENT = FRAME.iloc[:60].round(1)

Register = Callable[..., str]

KINDS: dict[str, tuple[Callable[[], Any], Any, dict[str, Any]]] = {
    "fixed-threshold": (lambda: FixedThresholdClassifier(LogisticRegression(), threshold=0.2), TWO, {"threshold": 0.2}),
    "tuned-threshold": (lambda: TunedThresholdClassifierCV(LogisticRegression(), cv=3), TWO, {}),
    "fixed-decision": (
        lambda: FixedThresholdClassifier(LinearSVC(), threshold=-0.4, response_method="decision_function"),
        TWO,
        {"decided_by": "predict"},
    ),
    "one-against-one": (lambda: SVC(decision_function_shape="ovo"), THREE, {"decided_by": "predict"}),
    "svc-probability": (
        lambda: make_pipeline(StandardScaler(), SVC(probability=True, random_state=0)),
        THREE,
        {"decided_by": "predict"},
    ),
    "neighbours": (lambda: KNeighborsClassifier(4), TWO, {"decided_by": "probability", "threshold": 0.5}),
    "forest-ties": (
        lambda: RandomForestClassifier(4, random_state=0),
        TWO,
        {"decided_by": "probability", "threshold": 0.5},
    ),
    "digits-as-text": (LogisticRegression, THREE.map({"low": "0", "mid": "1", "top": "2"}), {"class_type": "string"}),
    "linear-svc": (lambda: LinearSVC(), TWO, {"decided_by": "decision_function", "threshold": 0.0}),
}


@pytest.fixture
def register(
    client: httpx2.Client, engine: Engine, models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Register:
    """Register an estimator under a name, unless it is there; its reference rows are those it was trained on."""
    prove_briefly(monkeypatch)

    def run(name: str, estimator: Any, **options: Any) -> str:
        if client.get(f"/models/{name}").status_code == 404:
            joblib.dump(estimator, tmp_path / "model.joblib")
            FRAME.to_csv(tmp_path / "rows.csv", index=False)
            with session_scope(engine) as session:
                add(
                    session,
                    tmp_path / "model.joblib",
                    AddOptions(reference=tmp_path / "rows.csv", name=name, **options),
                    models_dir=models_dir,
                )
            wait_until(lambda: client.get(f"/models/{name}").status_code == 200 or None)
        return name

    return run


def fitted(make: Callable[[], Any], target: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scikit-learn, that SVC's probabilities will go
        return make().fit(FRAME, target)


# A kind on one of the runtimes: both score by the same code, and both have each way to decide.
@pytest.mark.parametrize(
    ("stack", "kind"),
    [(runtime, kind) for place, kind in enumerate(KINDS) for runtime in [("queue", "sync")[place % 2]]],
    indirect=["stack"],
)
def test_every_route_answers_the_class_that_the_estimator_predicts(
    client: httpx2.Client, register: Register, kind: str
) -> None:
    make, target, decision = KINDS[kind]
    estimator = fitted(make, target)
    read = pd.read_csv(io.StringIO(SENT.to_csv(index=False)))
    expected = estimator.predict(read).tolist()
    name = register(kind, estimator)
    card = client.get(f"/models/{name}").json()["card"]
    assert decision.items() <= card.items()
    if kind == "tuned-threshold":
        assert card["threshold"] == pytest.approx(estimator.best_threshold_)
    rows = SENT.to_dict("records")

    items = client.post(f"/models/{name}/predict_batch", json={"rows": rows}).json()["items"]
    assert [item["label"] for item in items] == [str(value) for value in expected]
    assert [item["prediction"] for item in items] == expected
    for row, item in list(zip(rows, items, strict=True))[:4]:
        alone = client.post(f"/models/{name}/predict", json={"features": row}).json()
        assert [alone[key] for key in ("label", "prediction")] == [item[key] for key in ("label", "prediction")]
        # A threshold is shown where it is one of the probability beside it.
        assert (alone["threshold"] is None) == (card.get("threshold") is None or alone["probability"] is None)

    answer = client.post(f"/models/{name}/invocations", json={"dataframe_records": rows})
    assert answer.json()["predictions"] == expected
    tensors = [
        {"name": column, "shape": [len(rows)], "datatype": "FP64", "data": SENT[column].tolist()} for column in NAMES
    ]
    answer = client.post(f"/v2/models/{name}/infer", json={"inputs": tensors, "outputs": [{"name": "predict"}]})
    assert answer.json()["outputs"][0]["data"] == expected

    job = send(client, SENT.to_csv(index=False).encode(), model=name)
    wait_for_job(client, job)
    lines = read_csv(client.get(f"/jobs/{job}/output.csv").content)
    assert [line["label"] for line in lines] == [str(value) for value in expected]
    if kind in ("linear-svc", "fixed-decision"):
        assert {(line["probability"], line["threshold"]) for line in lines} == {("", "")}


def test_decision_is_mapped_to_a_probability_that_a_threshold_decides_by(
    client: httpx2.Client, register: Register
) -> None:
    estimator = fitted(LinearSVC, TWO)
    name = register("mapped-svc", estimator, probability="sigmoid", threshold=0.7)
    items = client.post(f"/models/{name}/predict_batch", json={"rows": SENT.to_dict("records")}).json()["items"]
    expected = 1 / (1 + np.exp(-estimator.decision_function(SENT)))
    np.testing.assert_allclose([item["probability"] for item in items], expected, rtol=1e-9)
    assert [item["prediction"] for item in items] == (expected >= 0.7).astype(int).tolist()
    assert {item["threshold"] for item in items} == {0.7}
    answer = client.post(
        f"/models/{name}/invocations",
        json={"dataframe_records": SENT.to_dict("records"), "params": {"output": "predict_proba"}},
    )
    np.testing.assert_allclose(np.array(answer.json()["predictions"])[:, 1], expected, rtol=1e-9)


def many_labels() -> Any:
    return KNeighborsClassifier(3).fit(FRAME, np.column_stack([TWO, 1 - TWO, TWO * (THREE == "mid")]))


def whole_table(frame: pd.DataFrame) -> pd.DataFrame:
    return frame - frame.mean()


def varying_columns(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.loc[:, frame.nunique() > 1]  # of a single row, none


@pytest.mark.parametrize(
    ("estimator", "options", "error", "message"),
    [
        (LinearSVC().fit(FRAME, TWO), {"threshold": 0.99}, CardError, "a threshold decides by the probability"),
        (
            LogisticRegression().fit(FRAME, TWO),
            {"probability": "sigmoid"},
            CardError,
            "LogisticRegression gives probabilities itself",
        ),
        (many_labels(), {}, ArtefactError, "gives 3 answers a row"),
        (
            make_pipeline(FunctionTransformer(whole_table), LogisticRegression()).fit(FRAME, TWO),
            {},
            ArtefactError,
            "scores a row by the rows beside it",
        ),
        (
            make_pipeline(FunctionTransformer(varying_columns), LogisticRegression()).fit(FRAME, TWO),
            {},
            ArtefactError,
            "rows that it refuses alone, it takes among others",
        ),
    ],
    ids=["threshold", "sigmoid", "outputs", "table", "columns"],
)
def test_model_that_cannot_be_answered_as_it_answers_itself_is_refused(
    register: Register, estimator: Any, options: dict[str, Any], error: type[GuichetError], message: str
) -> None:
    with pytest.raises(error) as refusal:
        register("refused", estimator, **options)
    assert message in refusal.value.detail

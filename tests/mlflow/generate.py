"""Save the models of this folder with the real MLflow, and write down what its scoring server answers about them.

    python -m venv /tmp/mlflow && /tmp/mlflow/bin/pip install mlflow==3.17.2 scikit-learn==1.9.1 numpy==2.4.6 \
        pandas==3.1.1 skops==0.16.0
    /tmp/mlflow/bin/python tests/mlflow/generate.py          (with Python 3.11; it was run so on 2026-11-21)

`visitors`: a classifier of named columns, in skops, as MLflow 3 saves by default. `tariff`: a regressor that was
trained on an array, in cloudpickle, as MLflow 2 saved by default. `answers.json`: requests and real answers.
"""

import json
import shutil
import sys
import warnings
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import Model, infer_signature
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from tests.mlflow.cases import requests  # noqa: E402
from tests.mlflow.server import ask, scoring_server  # noqa: E402

RUN = "677bc43512cf44fc991ca7869a1d9a77"
REQUIREMENTS = ["scikit-learn==1.9.1", "numpy==2.4.6", "pandas==3.1.1"]


def visitors(rows=300, seed=11):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": rng.integers(16, 80, rows),
            "basket": np.round(rng.gamma(2.0, 30.0, rows), 2),
            "city": rng.choice(["Brest", "Lyon", "Paris"], rows),
            "member": rng.random(rows) < 0.4,
        }
    )
    frame.loc[rng.random(rows) < 0.1, "basket"] = np.nan
    score = frame["basket"].fillna(60) / 30 + frame["member"] - frame["age"] / 40 + rng.normal(0, 0.5, rows)
    return frame, (score > 1).to_numpy()


def save_visitors():
    frame, bought = visitors()
    encoder = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), ["age", "basket"]),
            ("city", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["city"]),
            ("member", "passthrough", ["member"]),
        ]
    )
    model = make_pipeline(encoder, LogisticRegression()).fit(frame, bought)
    mlflow.sklearn.save_model(
        model,
        HERE / "visitors",
        mlflow_model=Model(run_id=RUN),
        signature=infer_signature(frame, model.predict(frame)),
        input_example=frame.head(12),
        pip_requirements=[*REQUIREMENTS, "skops==0.16.0"],
        skops_trusted_types=["numpy.dtype"],  # what the imputer holds
    )


def save_tariff():
    rng = np.random.default_rng(5)
    matrix = np.round(rng.random((200, 3)) * 10, 2)
    price = matrix @ [2.0, 0.5, -1.0] + 7
    model = LinearRegression().fit(matrix, price)
    mlflow.sklearn.save_model(
        model,
        HERE / "tariff",
        signature=infer_signature(matrix, price),
        input_example=matrix[:3],
        serialization_format="cloudpickle",
        pip_requirements=REQUIREMENTS,
    )
    pd.DataFrame(matrix[:40], columns=["distance", "weight", "discount"]).to_csv(HERE / "tariff.csv", index=False)


def main():
    for name in ("visitors", "tariff"):
        shutil.rmtree(HERE / name, ignore_errors=True)
    save_visitors()
    save_tariff()
    answers = []
    with scoring_server(HERE / "visitors") as visitors_url, scoring_server(HERE / "tariff") as tariff_url:
        urls = {"visitors": visitors_url, "tariff": tariff_url}
        for model, name, kind, body in requests():
            status, content = ask(urls[model], kind, body)
            entry = {"model": model, "name": name, "content_type": kind, "body": body, "status": status}
            answers.append(entry | ({"predictions": json.loads(content)["predictions"]} if status == 200 else {}))
    (HERE / "answers.json").write_text(json.dumps(answers, indent=1) + "\n")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()

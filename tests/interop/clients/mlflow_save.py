"""Save models with MLflow, as who trained them would: {"models": [{artefact, rows, folder, answers}]} on stdin."""

import json
import sys

import joblib
import mlflow
import pandas as pd
from mlflow.models import infer_signature

task = json.load(sys.stdin)
for model in task["models"]:
    estimator = joblib.load(model["artefact"])
    frame = pd.DataFrame(model["rows"])
    mlflow.sklearn.save_model(
        estimator,
        model["folder"],
        signature=infer_signature(frame, estimator.predict(frame)),
        input_example=frame.head(100),
        serialization_format="cloudpickle",
        pyfunc_predict_fn=model["answers"],
        pip_requirements=["scikit-learn"],  # MLflow would find them out by starting a process for each
    )
json.dump({"version": mlflow.__version__}, sys.stdout)

"""The form of a model on its way to the service: the same bytes at every attempt, and data frames as reference rows."""

import asyncio
import io
import json
import pickle

import numpy as np
import pandas as pd
import pytest
from guichet.errors import Unusable
from guichet.registering import open_model
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers

from api.files.models import ModelForm, read_upload
from shared.jobs.registrations import Upload

FRAME = pd.DataFrame({"age": [30, 41, None], "city": ["Nîmes", "Lyon", "Lyon"]})


def received(model: object, rows: object = None, answers: object = None, **options: object) -> tuple[Upload, bytes]:
    """Return what the service reads in the form, and its reference rows."""
    files = {name: options.pop(name) for name in ("reference", "code", "contract") if name in options}
    with open_model(model, rows, answers, files, options, "churn") as upload:  # type: ignore[arg-type]
        body = b"".join(upload)
        assert b"".join(upload) == body
        assert int(upload.headers["Content-Length"]) == len(body)
        assert asyncio.run(_gathered(upload)) == body
        _, parameters = parse_options_header(Headers(upload.headers)["content-type"])
    with ModelForm(parameters[b"boundary"], max_bytes=1_000_000) as form:
        for place in range(0, len(body), 7):
            form.parse(body[place : place + 7])
        form.check_end()
        reference = form.files.get("reference")
        return read_upload(form, "anyone"), b"" if reference is None else b"".join(reference.pieces())


async def _gathered(upload):
    return b"".join([piece async for piece in upload.in_thread()])


def test_estimator_comes_pickled_with_its_rows_and_answers(tmp_path):
    upload, rows = received({"a": 1}, FRAME, pd.Series([0, 1, 1], name="left"), metrics={"auc": 0.5}, threshold=0.3)
    assert json.loads(rows)[0] == {"age": 30.0, "city": "Nîmes", "left": 0}
    assert json.loads(rows)[2]["age"] is None
    assert upload.options == {"name": "churn", "target": "left", "metrics": {"auc": 0.5}, "threshold": 0.3}
    assert upload.files["reference"].name == "reference.json"
    assert upload.files["artefact"].size == len(pickle.dumps({"a": 1}))


def test_array_gets_names_of_columns_and_long_data_are_thinned():
    _, rows = received({}, np.arange(60_000).reshape(30_000, 2), np.zeros(30_000))
    read = json.loads(rows)
    assert len(read) == 10_000
    assert read[1] == {"x0": 6, "x1": 7, "target": 0.0}


def test_files_come_under_their_fields(tmp_path):
    (tmp_path / "model.skops").write_bytes(b"PK\x03\x04")
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    (tmp_path / "features.py").write_text("x = 1")
    upload, _ = received(
        tmp_path / "model.skops",
        reference=tmp_path / "rows.parquet",
        code=tmp_path / "features.py",
        labels={0: "no", 1: "yes"},
        trust=["a.B", "c.D"],
        skip_bad=True,
    )
    names = {field: file.name for field, file in upload.files.items()}
    assert names == {"artefact": "artefact.joblib", "reference": "reference.parquet", "code": "features.py"}
    assert upload.options["labels"] == {"0": "no", "1": "yes"}
    assert (upload.options["trust"], upload.options["skip_bad"]) == (["a.B", "c.D"], True)


def test_what_cannot_be_sent_is_refused_with_what_to_do(tmp_path):
    for model, rows, answers, files, words in (
        (tmp_path / "none.joblib", None, None, {}, "cannot be read"),
        (lambda: None, None, None, {}, "cannot be pickled .* put its own functions and classes into a module"),
        ({}, FRAME, [1], {}, "3 rows and 1 answers"),
        ({}, None, [1], {}, "give X and y"),
        ({}, FRAME, None, {"reference": tmp_path / "x.csv"}, "not both"),
        ({}, FRAME, pd.Series([1, 2, 3], name="age"), {}, "'age' is a column of the rows already"),
        ({}, None, None, {"contract": tmp_path / "none.json"}, "cannot be read"),
    ):
        with pytest.raises(Unusable, match=words):
            open_model(model, rows, answers, files, {}, "churn")
    shrinking = io.BytesIO(b"abc")
    with open_model({}, None, None, {}, {}, "churn") as upload:
        upload._parts.append((b"", shrinking))
        upload._sizes.append(4)
        with pytest.raises(Unusable, match="became shorter"):
            list(upload)

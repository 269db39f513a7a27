"""Folders that MLflow saved: what of them becomes a card, and what is refused with a sentence that helps."""

import json
import os
import shutil
import time
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.linear_model import LinearRegression, LogisticRegression

from shared.cards.card import Card
from shared.cards.validator import RowValidator
from shared.commands.registry import main
from shared.database.engine import make_engine, session_scope
from shared.errors import ArtefactError, CardError
from shared.packages.mlflow.folder import joblib_file, read_mlflow_folder
from shared.packages.mlflow.package import mlflow_package
from shared.packages.sample import read_rows
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import add
from shared.registry.loading import load, verify
from shared.registry.versions import resolve
from shared.tables import Table
from tests.support.brief import prove_briefly

SAVED = Path(__file__).parents[3] / "mlflow"


@pytest.fixture(autouse=True)
def _short_measurements(monkeypatch):
    prove_briefly(monkeypatch)
    monkeypatch.setattr(
        "shared.scoring.selection.CANDIDATES", ()
    )  # how else a model could be scored is not the question here


@pytest.fixture
def engine(tmp_path):
    engine = make_engine(f"sqlite:///{tmp_path / 'guichet.db'}")
    Table.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def take_in(engine, tmp_path):
    def take_in(folder, **options):
        with session_scope(engine) as session:
            return add(session, folder, AddOptions(**{"name": "taken"} | options), models_dir=tmp_path / "models")

    return take_in


@pytest.fixture(scope="module")
def pickled(tmp_path_factory):
    """The folder `visitors` with its model as a pickle, which is read sooner than skops."""
    folder = Path(shutil.copytree(SAVED / "visitors", tmp_path_factory.mktemp("pickled") / "visitors"))
    with joblib_file(read_mlflow_folder(folder)) as file:
        shutil.copy(file, folder / "model.pkl")
    change(folder, flavors=flavour())
    return folder


@pytest.fixture
def folder(pickled, tmp_path):
    """A copy of it, to spoil."""
    return Path(shutil.copytree(pickled, tmp_path / "visitors"))


@pytest.fixture
def skops_folder(tmp_path):
    """A copy of `visitors` as MLflow saved it, to spoil."""
    return Path(shutil.copytree(SAVED / "visitors", tmp_path / "visitors"))


def change(folder, **about):
    """Write other words into MLmodel; None takes them out."""
    path = folder / "MLmodel"
    described = yaml.safe_load(path.read_text()) | about
    path.write_text(yaml.safe_dump({key: value for key, value in described.items() if value is not None}))


def sign(folder, *columns):
    change(folder, signature={"inputs": json.dumps(columns)})


def flavour(**about):
    return {"sklearn": {"pickled_model": "model.pkl", "serialization_format": "pickle"} | about}


def package_of(folder, *, reference=None, name="taken", **changes):
    """Return the package of a folder, which no database knows yet."""
    read = read_mlflow_folder(folder)
    with joblib_file(read) as file:
        return mlflow_package(read, file, reference, changes | ({"name": name} if name else {}))


def refusal(folder, kind=CardError, **options):
    with pytest.raises(kind) as refused:
        package_of(folder, **options)
    assert refused.value.detail.endswith(".")
    return refused.value.detail


LONG = {"type": "long", "name": "age", "required": True}
DOUBLE = {"type": "double", "name": "basket", "required": False}
STRING = {"type": "string", "name": "city", "required": True}
BOOLEAN = {"type": "boolean", "name": "member", "required": True}


# --- what becomes of a folder --------------------------------------------------------------------------------------


def test_folder_becomes_a_version_whose_card_follows_its_signature(take_in, engine, tmp_path):
    row = take_in(SAVED / "visitors", name="visitors")
    card = Card.load(tmp_path / "models" / "visitors" / "1" / "model.json")
    assert [(feature.name, feature.type, feature.required) for feature in card.features] == [
        ("age", "integer", True),
        ("basket", "number", False),
        ("city", "string", True),
        ("member", "boolean", True),
    ]
    example = json.loads((SAVED / "visitors" / "input_example.json").read_text())
    RowValidator(card).validate(card.example())
    assert list(card.example().values()) not in example["data"]
    assert card.features[2].categories == ["Brest", "Lyon", "Paris"]
    assert (card.task, card.extra) == ("binary", "ignore")
    assert list(card.labels) == ["False", "True"]
    assert card.libraries == {"numpy": "2.4.6", "scikit-learn": "1.9.1"}
    assert card.trained_at is not None
    saved_by = "MLflow 3.17.2, run 677bc43512cf44fc991ca7869a1d9a77"
    assert card.notes == f"Taken from a folder that MLflow saved: {saved_by}. Its examples are made up."
    rows = read_rows(tmp_path / "models" / "visitors" / "1" / "reference.jsonl")
    assert [list(row.values()) for row in rows.rows] == example["data"]
    assert row.scorer["decisions_differ"] == 0
    with session_scope(engine) as session:
        assert verify(session, "visitors", 1, models_dir=tmp_path / "models")["features"] == 4


def test_scores_are_those_of_the_estimator_that_mlflow_saved(take_in, tmp_path):
    row = take_in(SAVED / "visitors")
    with joblib_file(read_mlflow_folder(SAVED / "visitors")) as file:
        estimator = joblib.load(file)
    loaded = load(row, tmp_path / "models")
    frame = pd.DataFrame(loaded.reference).astype({"age": "int64", "basket": "float64", "member": "bool"})
    scores = loaded.scorer.score(loaded.reference)
    assert scores.probability is not None
    assert np.abs(scores.probability - estimator.predict_proba(frame)[:, 1]).max() <= 1e-6


def test_adding_the_same_folder_again_is_the_same_version(take_in):
    first, again = take_in(SAVED / "visitors"), take_in(SAVED / "visitors" / "MLmodel")
    assert (first.version, first.sha256) == (again.version, again.sha256)


def test_skops_file_becomes_the_same_bytes_whatever_the_process_did_before(monkeypatch):
    texts = ["remainder", "".join(["remain", "der"])]
    assert texts[0] is not texts[1]
    written = []
    for estimator in ({"a": texts[0], "b": texts[0]}, {"a": texts[0], "b": texts[1]}):
        monkeypatch.setattr("skops.io.loads", lambda *_, _estimator=estimator, **__: _estimator)
        with joblib_file(read_mlflow_folder(SAVED / "visitors")) as file:
            written.append(file.read_bytes())
            assert joblib.load(file) == {"a": "remainder", "b": "remainder"}
    assert written[0] == written[1]


def test_pickle_is_registered_as_it_is(take_in, tmp_path):
    row = take_in(SAVED / "tariff", reference=SAVED / "tariff.csv")
    assert (tmp_path / "models" / row.uri / "model.joblib").read_bytes() == (SAVED / "tariff/model.pkl").read_bytes()
    assert row.card["task"] == "regression"
    assert [feature["name"] for feature in row.card["features"]] == ["distance", "weight", "discount"]


def test_scores_that_the_model_gave_where_it_was_trained_are_compared(take_in, tmp_path):
    frame = pd.read_csv(SAVED / "tariff.csv")
    estimator = joblib.load(SAVED / "tariff" / "model.pkl")
    frame.assign(price=estimator.predict(frame.to_numpy())).to_csv(tmp_path / "rows.csv", index=False)
    row = take_in(SAVED / "tariff", reference=tmp_path / "rows.csv", scores="price")
    assert [feature["name"] for feature in row.card["features"]] == ["distance", "weight", "discount"]
    frame.assign(price=0.0).to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(ArtefactError):
        take_in(SAVED / "tariff", reference=tmp_path / "rows.csv", scores="price", name="other")


def test_command_takes_a_folder_in_that_answers_with_probabilities(folder, tmp_path, capsys):
    about = yaml.safe_load((folder / "MLmodel").read_text())
    change(folder, flavors=about["flavors"] | {"python_function": {"predict_fn": "predict_proba"}})
    from alembic import command

    from tests.support.databases import alembic_config, settings_of  # a database that the command finds by its settings

    url = f"sqlite:///{tmp_path / 'own.db'}"
    with settings_of(RUNTIME="sync", DATABASE_URL=url, MODELS_DIR=str(tmp_path / "models")):
        command.upgrade(alembic_config(), "head")
        assert main(["add", str(folder), "--name", "visitors"]) == 0
        assert capsys.readouterr().out.startswith("visitors@1 (champion): binary, 4 features")
        with session_scope(read_only=True) as session:
            assert resolve(session, "visitors").card["invocations"] == "predict_proba"


def test_reference_rows_are_preferred_to_the_input_example(folder, tmp_path):
    (folder / "input_example.json").write_text("spoilt")
    rows = tmp_path / "rows.csv"
    rows.write_text("bought,city,member,basket,age\n1,Lyon,true,,44\n0,Paris,false,3.5,20\n")
    package = package_of(folder, reference=rows, target="bought")
    assert package.card.target == "bought"
    assert package.reference == [
        {"age": 44, "basket": None, "city": "Lyon", "member": True},
        {"age": 20, "basket": 3.5, "city": "Paris", "member": False},
    ]


def test_folder_without_a_signature_is_learnt_from_its_example(folder):
    change(folder, signature=None)
    kinds = {feature.name: feature.type for feature in package_of(folder).card.features}
    assert kinds == {"age": "integer", "basket": "number", "city": "string", "member": "boolean"}


def test_signature_of_an_older_mlflow_says_optional(folder):
    old = {"type": "double", "name": "basket", "optional": True}
    sign(folder, {"type": "long", "name": "age"}, old, {"type": "string", "name": "city"}, BOOLEAN)
    required = {feature.name: feature.required for feature in package_of(folder).card.features}
    assert required == {"age": True, "basket": False, "city": True, "member": True}


@pytest.mark.parametrize(
    "content",
    [
        {"age": 35, "basket": 1.5, "city": "Lyon", "member": True},
        [{"age": 35, "basket": 1.5, "city": "Lyon", "member": True}],
        {"age": [35], "basket": [1.5], "city": ["Lyon"], "member": [True]},
        {"inputs": [[35, 1.5, "Lyon", True]]},
        {"data": [[35, 1.5, "Lyon", True]]},
    ],
    ids=["one row", "records", "columns", "matrix", "split without names"],
)
def test_input_example_may_have_any_form_that_mlflow_writes(folder, content):
    (folder / "input_example.json").write_text(json.dumps(content))
    assert package_of(folder).reference == [{"age": 35, "basket": 1.5, "city": "Lyon", "member": True}]


def test_named_tensors_are_columns(folder):
    frame = pd.DataFrame({"x": [0.5, 1.5, 2.5], "y": [1, 2, 4]})
    joblib.dump(LinearRegression().fit(frame, [1.0, 2.0, 3.5]), folder / "model.pkl")
    spec = {"dtype": "float64", "shape": [-1]}
    sign(
        folder,
        {"type": "tensor", "name": "x", "tensor-spec": spec},
        {"type": "tensor", "name": "y", "tensor-spec": {"dtype": "int64", "shape": [-1, 1]}},
    )
    (folder / "input_example.json").write_text(json.dumps({"x": [0.5, 1.5], "y": [1, 2]}))
    kinds = {feature.name: feature.type for feature in package_of(folder).card.features}
    assert kinds == {"x": "number", "y": "integer"}


# --- what is refused -----------------------------------------------------------------------------------------------


def test_folder_without_the_sklearn_flavour_says_what_it_has_and_what_to_do(folder):
    change(folder, flavors={"lightgbm": {"data": "model.lgb"}, "python_function": {}})
    detail = refusal(folder)
    assert "lightgbm, python_function" in detail
    assert "mlflow.sklearn.save_model" in detail


@pytest.mark.parametrize("text", ["", "- a list", "flavors: [", "flavors: 3", "run_id: x\n", "\x00"])
def test_mlmodel_that_is_not_what_mlflow_writes_is_refused(folder, text):
    (folder / "MLmodel").write_text(text)
    assert str(folder / "MLmodel") in refusal(folder)


def test_yaml_that_would_build_an_object_is_not_obeyed(folder, tmp_path):
    canary = tmp_path / "canary"
    (folder / "MLmodel").write_text(f"flavors: !!python/object/apply:os.mkdir ['{canary}']\n")
    refusal(folder)
    assert not canary.exists()


def test_missing_model_file_is_told_by_name(folder):
    (folder / "model.pkl").unlink()
    assert "model.pkl is missing" in refusal(folder, ArtefactError)


@pytest.mark.parametrize("name", ["../visitors.pkl", "/etc/passwd", None, 3])
def test_model_file_outside_the_folder_is_never_read(folder, name):
    shutil.copy(SAVED / "tariff" / "model.pkl", folder.parent / "visitors.pkl")
    change(folder, flavors=flavour(pickled_model=name))
    assert "names no file of its folder" in refusal(folder, ArtefactError)


@pytest.mark.parametrize("name", ["a" * 300, "\ud800"], ids=["too long", "no text"])
def test_name_that_no_file_can_have_is_refused(folder, name):
    change(folder, flavors=flavour(pickled_model=name))
    assert "names no file of its folder" in refusal(folder, ArtefactError)


@pytest.mark.parametrize("value", ["2024-13-45", "!!int x", "!!bool maybe", "!!timestamp x", "!!float x", "!!int []"])
def test_value_that_its_tag_or_form_contradicts_is_refused(folder, value):
    with (folder / "MLmodel").open("a") as file:
        file.write(f"saved_on: {value}\n")
    assert "MLmodel cannot be read" in refusal(folder)


def test_input_example_outside_the_folder_is_never_read(folder):
    change(folder, saved_input_example_info={"artifact_path": "../elsewhere.json", "type": "dataframe"})
    assert "--reference" in refusal(folder)


def test_unknown_serialization_is_refused(folder):
    change(folder, flavors=flavour(serialization_format="onnx"))
    assert "cloudpickle" in refusal(folder, ArtefactError)


def test_skops_types_that_only_the_folder_itself_trusts_are_told(skops_folder, monkeypatch):
    monkeypatch.setattr("shared.packages.mlflow.folder.HARMLESS", ())
    assert "skops_trusted_types" in (skops_folder / "MLmodel").read_text()
    detail = refusal(skops_folder, ArtefactError)
    assert "numpy.dtype" in detail
    assert "If you trust where they come from, say so with `--trust " in detail


def test_skops_types_that_whoever_adds_the_model_trusts_are_read(take_in, skops_folder, monkeypatch):
    monkeypatch.setattr("shared.packages.mlflow.folder.HARMLESS", ())
    assert take_in(skops_folder, trust=["numpy.dtype"]).card["task"] == "binary"


@pytest.mark.parametrize("line", ["{}: &{} [{}]", "{}: &{} {{<<: [{}]}}"], ids=["lists of lists", "merged mappings"])
def test_yaml_whose_aliases_stand_for_a_billion_nodes_is_refused_at_once(folder, line):
    lines = ["a: &a {x: 1}"]
    for before, name in zip("abcdefghi", "bcdefghij", strict=True):
        lines.append(line.format(name, name, ", ".join([f"*{before}"] * 10)))
    (folder / "MLmodel").write_text("\n".join([*lines, "flavors: {sklearn: *j}"]))
    began = time.monotonic()
    assert "YAMLError" in refusal(folder)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("name", ["model.pkl", "requirements.txt", "input_example.json"])
def test_pipe_in_the_folder_is_not_waited_for(folder, name):
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    if name == "requirements.txt":  # nothing is known of the versions
        assert package_of(folder).card.task == "binary"
    elif name == "model.pkl":
        assert "model.pkl is missing" in refusal(folder, ArtefactError)
    else:
        assert "input example" in refusal(folder, CardError)


@pytest.mark.parametrize("form", ["skops", "cloudpickle"])
def test_spoilt_model_file_names_the_versions_that_it_was_saved_with(folder, form):
    (folder / "model").write_bytes(b"neither a zip nor a pickle")
    change(folder, flavors=flavour(pickled_model="model", serialization_format=form))
    (folder / "requirements.txt").write_text("mlflow==2.9.0\nscikit_learn==1.2.2 ; python_version < '4'\n# numpy==1\n")
    detail = refusal(folder, ArtefactError)
    assert "scikit-learn==1.2.2" in detail


def test_pickle_that_needs_code_of_the_folder_says_so(folder):
    (folder / "model.pkl").write_bytes(b"cseats_of_nobody\nModel\n.")
    change(folder, flavors=flavour(serialization_format="cloudpickle", code="code"))
    detail = refusal(folder, ArtefactError)
    assert "seats_of_nobody" in detail
    assert "brings code of its own" in detail


def test_signature_that_the_estimator_contradicts_is_refused(folder):
    sign(folder, LONG, DOUBLE, STRING)
    assert "lacks member" in refusal(folder)
    sign(folder, LONG, DOUBLE, STRING, BOOLEAN, {"type": "long", "name": "bought"})
    assert "has bought, which the model does not know" in refusal(folder)
    sign(folder, LONG, DOUBLE, LONG | {"name": "city"}, BOOLEAN)  # its encoder was trained on text
    assert "disagree (city" in refusal(folder)


def test_signature_in_another_order_is_taken_in_the_order_of_the_estimator(folder):
    sign(folder, BOOLEAN, STRING, DOUBLE, LONG)
    names = [feature.name for feature in package_of(folder).card.features]
    assert names == ["age", "basket", "city", "member"]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"type": "datetime", "name": "age"}, "age (datetime)"),
        ({"type": "binary", "name": "age"}, "age (binary)"),
        ({"type": "array", "name": "age", "items": {"type": "long"}}, "age (array)"),
        ({"type": "tensor", "name": "age", "tensor-spec": {"dtype": "complex64", "shape": [-1]}}, "complex64"),
        ({"type": "tensor", "name": "age", "tensor-spec": {"dtype": "float64", "shape": [-1, 8, 8]}}, "[-1, 8, 8]"),
    ],
)
def test_column_of_a_type_that_no_feature_has_is_named(folder, column, message):
    sign(folder, column, DOUBLE, STRING, BOOLEAN)
    assert message in refusal(folder)


@pytest.mark.parametrize("inputs", ["no JSON", "{}", "[1]", None, 3])
def test_signature_that_cannot_be_read_is_refused(folder, inputs):
    change(folder, signature={"inputs": inputs})
    assert "cannot be read" in refusal(folder)


def test_column_that_is_signed_twice_is_refused(folder):
    sign(folder, LONG, LONG, DOUBLE, STRING, BOOLEAN)
    assert "twice" in refusal(folder)


def test_columns_without_names_of_several_types_are_refused(folder):
    sign(folder, {"type": "long"}, {"type": "double"})
    assert "without names" in refusal(folder)


def test_tensor_without_names_asks_for_rows_that_name_its_columns(tmp_path):
    detail = refusal(SAVED / "tariff")
    assert "--reference rows.csv, whose header names the columns" in detail
    two = tmp_path / "two.csv"
    two.write_text("distance,weight\n1,2\n")
    assert "a matrix of 3 columns, and 2 are named" in refusal(SAVED / "tariff", reference=two)


def test_tensor_of_three_dimensions_is_refused(tmp_path):
    folder = Path(shutil.copytree(SAVED / "tariff", tmp_path / "tariff"))
    sign(folder, {"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 8, 8]}})
    assert "3 dimensions" in refusal(folder)


def test_matrix_of_a_model_with_names_takes_its_names(tmp_path):
    folder = Path(shutil.copytree(SAVED / "tariff", tmp_path / "tariff"))
    frame = pd.DataFrame({"near": [0.0, 1, 2, 3], "far": [3.0, 2, 5, 1]})
    joblib.dump(LogisticRegression().fit(frame, [0, 0, 1, 1]), folder / "model.pkl")
    sign(folder, {"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 2]}})
    (folder / "input_example.json").write_text("[[0.5, 1.5], [2.5, 3.5]]")
    assert [feature.name for feature in package_of(folder).card.features] == ["near", "far"]


def test_folder_without_example_asks_for_reference_rows(folder):
    change(folder, saved_input_example_info=None)
    assert "--reference rows.csv" in refusal(folder)


@pytest.mark.parametrize("text", ["no JSON", '{"columns": ["age"], "data": [[1, 2]]}', "3", '{"a": [1], "b": [1, 2]}'])
def test_input_example_that_cannot_be_read_asks_for_reference_rows(folder, text):
    (folder / "input_example.json").write_text(text)
    assert "--reference" in refusal(folder)


def test_rows_that_lack_a_signed_column_are_refused(folder, tmp_path):
    rows = tmp_path / "rows.csv"
    rows.write_text("age,basket,city\n44,1.5,Lyon\n")
    assert "lack 1 of the signature's 4 columns (member)" in refusal(folder, reference=rows)


def test_folder_needs_a_name():
    assert "--name" in refusal(SAVED / "visitors", name=None)


def test_card_of_ones_own_is_preferred_to_the_signature(take_in, tmp_path):
    written = take_in(SAVED / "tariff", reference=SAVED / "tariff.csv")
    card = Card.model_validate(written.card).model_copy(update={"name": "fares", "description": "Ours."})
    card.dump(tmp_path / "own.json")
    row = take_in(SAVED / "tariff", card=tmp_path / "own.json", name=None)
    assert (row.name, row.card["description"], row.sha256) == ("fares", "Ours.", written.sha256)

"""The registry: what it accepts, what it refuses before any harm is done, and what is left when it is interrupted."""

import hashlib
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sqlalchemy import delete
from sqlalchemy.orm import Session

from shared.cards.card import Card
from shared.commands.registry import main
from shared.config.settings import get_settings
from shared.database.engine import get_engine, make_engine, session_scope
from shared.errors import ArtefactError, CardError, Conflict, NotFound
from shared.packages import package
from shared.packages.sources.candidates import AddOptions
from shared.registry import adding as registry
from shared.registry.adding import add, register
from shared.registry.aliases import Change, promote
from shared.registry.archiving import archive
from shared.registry.loading import load, verify
from shared.registry.versions import aliases_of, find_reference, list_versions, resolve
from shared.tables import ModelAlias, ModelVersion, Table
from tests.support.brief import prove_briefly


def people(rows=300, seed=3):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 65, rows),
            "income": np.round(rng.normal(30_000, 8_000, rows), 2),
            "city": rng.choice(["Brest", "Lyon", "Paris"], rows).astype(object),
        }
    )
    frame["left"] = ((frame["age"] < 35) ^ (rng.random(rows) < 0.2)).astype(int)
    return frame


def encoder():
    return ColumnTransformer(
        [
            ("numbers", StandardScaler(), ["age", "income"]),
            ("texts", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["city"]),
        ]
    )


def fitted(final=None, *, seed=3):
    frame = people(seed=seed)
    return make_pipeline(encoder(), final or LogisticRegression()).fit(frame.drop(columns="left"), frame["left"])


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Two joblib files of one kind of model, and the rows that they were trained on."""
    folder = tmp_path_factory.mktemp("files")
    joblib.dump(fitted(), folder / "first.joblib")
    joblib.dump(fitted(seed=4), folder / "second.joblib")
    people().to_csv(folder / "rows.csv", index=False)
    return folder


@pytest.fixture(autouse=True)
def _short_measurements(monkeypatch):
    prove_briefly(monkeypatch)


@pytest.fixture
def models(tmp_path):
    return tmp_path / "models"


@pytest.fixture
def engine(tmp_path):
    engine = make_engine(f"sqlite:///{tmp_path / 'guichet.db'}")
    Table.metadata.create_all(engine)
    yield engine
    engine.dispose()


def add_people(engine, files, models, artefact="first.joblib", **options):
    options = {"reference": files / "rows.csv", "name": "people", "target": "left"} | options
    with session_scope(engine) as session:
        return add(session, files / artefact, AddOptions(**options), models_dir=models)


class Canary:
    """Unpickling it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- adding --------------------------------------------------------------------------------------------------------


def test_bare_joblib_with_rows_becomes_champion_version_one(engine, files, models):
    row = add_people(engine, files, models, labels={"0": "stays", "1": "leaves"}, threshold=0.4)
    folder = models / "people" / "1"
    assert (row.name, row.version, row.uri) == ("people", 1, "people/1")
    assert row.sha256 == sha256(folder / "model.joblib") == sha256(files / "first.joblib")
    assert sorted(path.name for path in folder.iterdir()) == ["model.joblib", "model.json", "reference.jsonl"]
    card = Card.load(folder / "model.json")
    assert card.labels == {"0": "stays", "1": "leaves"}
    assert (card.task, card.threshold, card.target) == ("binary", 0.4, "left")
    assert row.scorer["decisions_differ"] == 0
    with session_scope(engine) as session:
        assert resolve(session, "people").version == 1
        assert aliases_of(session) == {row.id: ["champion"]}


def gradient_boosting(kind):
    if kind == "xgboost":
        from xgboost import XGBClassifier

        return XGBClassifier(n_estimators=20, max_depth=3)
    from lightgbm import LGBMClassifier

    return LGBMClassifier(n_estimators=20, max_depth=3, verbose=-1)


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm"])
def test_gradient_boosting_of_other_libraries_is_added_and_scores_as_its_pipeline(
    engine, files, models, tmp_path, kind
):
    model = fitted(gradient_boosting(kind))
    joblib.dump(model, tmp_path / "model.joblib")
    row = add_people(engine, tmp_path, models, "model.joblib", reference=files / "rows.csv", name=kind)
    loaded = load(row, models)
    assert any(name.startswith(kind) for name in loaded.card.libraries)
    frame = people(seed=9).drop(columns="left")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        truth = model.predict_proba(frame)[:, 1]
        scores = loaded.scorer.score(frame.astype(object).to_dict("records"))
    assert np.abs(scores.probability - truth).max() <= 1e-6


def test_next_artefact_of_a_name_is_the_next_version_and_no_champion(engine, files, models):
    add_people(engine, files, models)
    assert add_people(engine, files, models, "second.joblib").version == 2
    with session_scope(engine) as session:
        assert resolve(session, "people").version == 1
        assert [row.version for row in list_versions(session, "people")] == [1, 2]


def test_adding_the_same_model_again_changes_nothing(engine, files, models):
    first = add_people(engine, files, models)
    assert add_people(engine, files, models).id == first.id
    assert add_people(engine, files, models, version=1).id == first.id


def test_adding_again_with_other_rows_leaves_the_package_alone(engine, files, models, tmp_path):
    row = add_people(engine, files, models)
    before = (models / row.uri / "reference.jsonl").read_bytes()
    people(40).drop(columns="left").to_csv(tmp_path / "rows.csv", index=False)
    card = models / row.uri / "model.json"
    assert add_people(engine, files, models, card=card, reference=tmp_path / "rows.csv", target=None).id == row.id
    assert (models / row.uri / "reference.jsonl").read_bytes() == before


def test_adding_again_restores_a_file_that_is_gone(engine, files, models):
    row = add_people(engine, files, models)
    shutil.rmtree(models / row.uri)
    assert add_people(engine, files, models).id == row.id
    assert load(row, models).card.version == 1


def test_artefact_that_changes_while_it_is_added_is_refused(engine, files, models, tmp_path):
    row = add_people(engine, files, models)
    with pytest.raises(ArtefactError, match="changed while it was being added"):
        package.write_package(tmp_path / "other", Card.model_validate(row.card), files / "second.joblib", [])
    assert list((tmp_path / "other/people").iterdir()) == []


def test_same_artefact_with_another_threshold_is_another_version(engine, files, models):
    add_people(engine, files, models)
    assert add_people(engine, files, models, threshold=0.3).version == 2


@pytest.mark.parametrize("options", [{"artefact": "second.joblib"}, {"threshold": 0.3}])
def test_version_is_immutable(engine, files, models, options):
    first = add_people(engine, files, models)
    with pytest.raises(Conflict, match=r"people@1 is registered with .*immutable: leave out the version"):
        add_people(engine, files, models, version=1, **options)
    with session_scope(engine) as session:
        assert [row.sha256 for row in list_versions(session)] == [first.sha256]
    assert sha256(models / "people/1/model.joblib") == first.sha256


def test_trained_model_is_registered_from_memory(engine, files, models):
    row = add_people(engine, files, models)
    card = Card.model_validate(row.card)
    reference = [{"age": 30, "income": 1.0, "city": "Lyon"}]
    with session_scope(engine) as session:
        made = register(session, package.Package(card, fitted(seed=8), reference), models_dir=models)
        assert (made.version, resolve(session, "people").version) == (2, 1)
    assert load(made, models).reference == reference


def test_package_folder_is_added_with_its_own_card_and_rows(engine, files, models, tmp_path):
    row = add_people(engine, files, models, labels={"0": "stays", "1": "leaves"})
    other = make_engine(f"sqlite:///{tmp_path / 'other.db'}")
    Table.metadata.create_all(other)
    with session_scope(other) as session:
        again = add(session, models / "people" / "1", models_dir=tmp_path / "elsewhere")
    other.dispose()
    assert (again.version, again.sha256, again.card["labels"]) == (1, row.sha256, row.card["labels"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"reference": None}, "comes without a card: give --reference"),
        ({"name": None}, "give the model a name with --name"),
        ({"name": "Not A Name"}, "'Not A Name' cannot be a model's name: use a to z, 0 to 9, _ and -, starting with a"),
        ({"name": "a" * 64}, "cannot be a model's name: .* 63 characters at most"),
        ({"labels": {"no": "x", "yes": "y"}}, "labels the classes no, yes but the model knows 0, 1"),
        ({"task": "regression"}, "a classifier with 2 classes: its task is 'binary'.* Leave --task out"),
        ({"target": "gone"}, "no column 'gone' to be the target: they have age, income, city, left"),
    ],
)
def test_incomplete_order_is_refused_with_what_to_do(engine, files, models, options, sentence):
    with pytest.raises(CardError, match=sentence):
        add_people(engine, files, models, **options)
    assert not models.exists()


def test_reference_row_that_does_not_fit_the_card_is_refused(engine, files, models, tmp_path):
    add_people(engine, files, models)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"age": 30, "income": 1.0, "city": "Lyon"}\n{"age": "old", "income": 1.0, "city": "Lyon"}\n')
    with pytest.raises(CardError, match=r"line 2 does not fit the card of people: age must be an integer"):
        add_people(engine, files, models, card=models / "people/1/model.json", reference=rows)


def test_model_that_cannot_score_its_reference_rows_is_refused(engine, models, tmp_path):
    frame = people()
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame[["age", "income"]], frame["left"])
    joblib.dump(model, tmp_path / "model.joblib")
    frame[["age", "income"]].assign(income="much").to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(ArtefactError, match=r"(refuses|cannot score) its own reference rows"):
        add_people(engine, tmp_path, models, "model.joblib", target=None)


# --- what is never unpickled, and what cannot be -------------------------------------------------------------------


def test_unregistered_artefact_beside_a_card_is_refused_before_unpickling(engine, files, models, tmp_path):
    row = add_people(engine, files, models)
    folder = tmp_path / "package"
    shutil.copytree(models / row.uri, folder)
    joblib.dump(Canary(tmp_path / "ran"), folder / "model.joblib")
    with session_scope(engine) as session, pytest.raises(ArtefactError, match="was not loaded: its SHA-256 is"):
        add(session, folder, models_dir=models)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("part", ["preprocessor", "code"])
def test_artefact_that_is_joined_with_others_is_the_cards_before_it_is_unpickled(engine, files, models, tmp_path, part):
    row = add_people(engine, files, models)
    joblib.dump(Canary(tmp_path / "ran"), tmp_path / "model.joblib")
    (tmp_path / "code").mkdir()
    more = {"preprocessor": files / "first.joblib", "code": tmp_path / "code"}
    with session_scope(engine) as session, pytest.raises(ArtefactError, match="was not loaded: its SHA-256 is"):
        add(
            session,
            tmp_path / "model.joblib",
            AddOptions(card=models / row.uri / "model.json", **{part: more[part]}),
            models_dir=models,
        )
    assert not (tmp_path / "ran").exists()


def test_swapped_artefact_of_a_registered_version_is_refused_before_unpickling(engine, files, models, tmp_path):
    row = add_people(engine, files, models)
    artefact = models / row.uri / "model.joblib"
    joblib.dump(Canary(tmp_path / "ran"), artefact)
    with pytest.raises(ArtefactError, match="restore the original, or add this one as a new version"):
        load(row, models)
    assert not (tmp_path / "ran").exists()
    # The hash in a card that was swapped along does not count: the database's does.
    card = Card.load(models / row.uri / "model.json").model_copy(update={"sha256": sha256(artefact)})
    card.dump(models / row.uri / "model.json")
    with pytest.raises(ArtefactError, match="SHA-256"):
        load(row, models)
    assert not (tmp_path / "ran").exists()


def test_reference_rows_that_are_not_those_of_the_registration_are_refused(engine, files, models):
    """They prove the scorer, and another model might be chosen on other rows."""
    row = add_people(engine, files, models)
    path = models / row.uri / "reference.jsonl"
    original = path.read_bytes()
    path.write_bytes(b"\n".join(original.splitlines()[:50]))
    with pytest.raises(ArtefactError, match=r"reference\.jsonl is not the file that was registered"):
        load(row, models)
    # Adding the same model again puts them back.
    assert add_people(engine, files, models).version == row.version
    assert path.read_bytes() == original
    assert load(row, models).reference
    # Of what an earlier release registered, nobody knows.
    row.scorer = {key: value for key, value in row.scorer.items() if key != "reference_sha256"}
    path.write_bytes(b"\n".join(original.splitlines()[:50]))
    assert len(load(row, models).reference) == 50


def test_example_that_an_earlier_release_took_from_the_rows_makes_no_other_version(engine, files, models):
    row = add_people(engine, files, models)
    with session_scope(engine) as session:
        stored = session.get(ModelVersion, row.id)
        old = "This card was inferred from the artefact and its reference rows."
        features = [
            feature | {"example": 31 if feature["type"] != "string" else "Lyon"} for feature in row.card["features"]
        ]
        stored.card = row.card | {"notes": old, "features": features}
    assert add_people(engine, files, models).version == row.version


def test_the_canary_sings_when_it_is_unpickled(tmp_path):
    joblib.dump(Canary(tmp_path / "ran"), tmp_path / "model.joblib")
    with pytest.raises(ArtefactError, match="holds a NoneType and no model"):
        package.unpickle(tmp_path / "model.joblib", sha256=None)
    assert (tmp_path / "ran").exists()


def test_change_to_a_card_that_makes_it_invalid_is_refused(engine, files, models):
    row = add_people(engine, files, models)
    card = models / row.uri / "model.json"
    with pytest.raises(CardError, match="a binary model has two labels"):
        add_people(engine, files, models, card=card, labels={"0": "stays"})
    with pytest.raises(CardError, match="threshold: must be less than or equal to 1"):
        add_people(engine, files, models, card=card, threshold=40)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"task": "regression"}, "The model is a classifier with 2 classes.* Leave --task out"),
        ({"task": "ranking"}, "The task 'ranking' is not known"),
        ({"target": "gone"}, "no column 'gone' to be the target: they have age, income, city, left"),
        ({"target": "city"}, "The target column 'city' does not hold this model's answers"),
        ({"target": "left", "scores": "left"}, "cannot be the target and the model's scores"),
    ],
)
def test_change_to_a_card_that_the_model_or_the_rows_contradict_is_refused(engine, files, models, options, sentence):
    row = add_people(engine, files, models)
    with pytest.raises(CardError, match=sentence):
        add_people(engine, files, models, card=models / row.uri / "model.json", **options)


def test_target_of_a_package_is_not_sought_in_its_own_rows(engine, files, models):
    row = add_people(engine, files, models)
    with session_scope(engine) as session:
        assert add(session, models / row.uri, AddOptions(target="left"), models_dir=models).id == row.id


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_truncated_artefact_is_refused(engine, files, models, keep):
    row = add_people(engine, files, models)
    artefact = models / row.uri / "model.joblib"
    artefact.write_bytes(artefact.read_bytes()[:keep])
    with pytest.raises(ArtefactError, match="altered, cut short or swapped"):
        load(row, models)


@pytest.mark.parametrize("keep", [0, 100, 700])
def test_truncated_file_that_is_added_as_it_is_says_what_to_do(engine, files, models, tmp_path, keep):
    (tmp_path / "model.joblib").write_bytes((files / "first.joblib").read_bytes()[:keep])
    with pytest.raises(ArtefactError, match=r"not a complete joblib file|cannot be loaded"):
        add_people(engine, tmp_path, models, "model.joblib", reference=files / "rows.csv")
    assert not models.exists()


def test_missing_artefact_says_where_it_belongs(engine, files, models):
    row = add_people(engine, files, models)
    (models / row.uri / "model.joblib").unlink()
    with pytest.raises(ArtefactError, match=r"people/1/model.joblib is missing: copy the package there"):
        load(row, models)


def test_artefact_of_a_library_that_is_not_installed_names_it(tmp_path):
    (tmp_path / "model.joblib").write_bytes(pickle.dumps(np.float64).replace(b"numpy", b"nimpy"))
    with pytest.raises(ArtefactError, match=r"needs the module 'nimpy', which is not installed here\.") as refused:
        package.unpickle(tmp_path / "model.joblib", sha256=None)
    assert "pip install" not in refused.value.detail  # whose package of that name might that be?
    named = r"in the version that the card names \(`python -m pip install nimpy==1\.2`\)"
    with pytest.raises(ArtefactError, match=named):
        package.unpickle(tmp_path / "model.joblib", sha256=None, libraries={"nimpy": "1.2"})


def test_artefact_of_a_module_that_another_version_has_names_no_package_to_install(tmp_path):
    (tmp_path / "model.joblib").write_bytes(b"cnumpy.nowhere\nfloat64\n.")
    with pytest.raises(ArtefactError, match=r"the module 'numpy\.nowhere', which the 'numpy' here lacks"):
        package.unpickle(tmp_path / "model.joblib", sha256=None)


# --- card and artefact ---------------------------------------------------------------------------------------------


def _drop(card):
    return {"features": card["features"][1:]}


def _rename(card):
    return {"features": [card["features"][0] | {"name": "years"}, *card["features"][1:]]}


def _reverse(card):
    return {"features": card["features"][::-1]}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_drop, "the card lacks age. List in the card exactly the 3 features"),
        (_rename, "the card lacks age and names years, which the model does not know"),
        (_reverse, "in another order: give them as the model was trained, starting with age, income, city"),
        (lambda card: {"labels": {"0": "no", "2": "yes"}}, "labels the classes 0, 2 but the model knows 0, 1"),
        (
            lambda card: {"task": "multiclass", "threshold": None},
            "says task 'multiclass' but the model has 2 classes: set the task to 'binary'",
        ),
        (
            lambda card: {"task": "regression", "threshold": None, "labels": {}, "decided_by": None},
            "says task 'regression' but the model is a classifier",
        ),
    ],
)
def test_card_and_artefact_that_disagree_are_refused(engine, files, models, tmp_path, change, sentence):
    row = add_people(engine, files, models)
    card = Card.model_validate(row.card | change(row.card))
    with pytest.raises(CardError, match=sentence):
        package.load_estimator(models / row.uri, card)
    card.dump(tmp_path / "model.json")
    with session_scope(engine) as session, pytest.raises(CardError, match=sentence):
        add(session, files / "first.joblib", AddOptions(card=tmp_path / "model.json"), models_dir=models)


def test_nameless_model_is_checked_by_its_feature_count(files):
    model = LinearRegression().fit(np.ones((4, 2)), np.arange(4))
    features = [{"name": name, "type": "number"} for name in ("a", "b", "c")]
    card = Card.model_validate(
        {"name": "line", "version": 1, "task": "regression", "sha256": package.UNHASHED, "features": features}
    )
    with pytest.raises(CardError, match="lists 3 features and the model was trained on 2"):
        package.check_agreement(card, model)


def test_labels_come_with_classes_whatever_the_database_did_to_them(engine, files, models):
    row = add_people(engine, files, models, labels={"0": "stays", "1": "leaves"})
    row.card = row.card | {"labels": {"1": "leaves", "0": "stays"}}
    assert list(load(row, models).card.labels.values()) == ["stays", "leaves"]


def test_other_library_versions_are_logged_and_the_fast_scorer_is_compared(engine, files, models, caplog):
    row = add_people(engine, files, models)
    row.card = row.card | {"libraries": {"scikit-learn": "0.1", "nimpy": "1.0"}}
    with caplog.at_level(logging.WARNING):
        load(row, models)
    assert "scikit-learn 0.1 -> " in caplog.text
    assert "nimpy 1.0 -> not installed" in caplog.text
    assert "only scores from there" in caplog.text


def test_scorer_that_is_no_longer_exact_gives_way_to_the_pipeline(engine, files, models, caplog):
    row = add_people(engine, files, models)
    row.scorer = row.scorer | {"kind": "treelite"}  # there are no trees in this model
    loaded = load(row, models)
    assert loaded.scorer.kind == "pipeline"
    assert "is scored by its pipeline, not by treelite" in caplog.text


# --- interrupted ---------------------------------------------------------------------------------------------------


def test_registration_that_was_rolled_back_is_taken_over_by_the_same_command(engine, files, models):
    with Session(engine) as session:  # closed without a commit, as after a crash
        add(session, files / "first.joblib", AddOptions(reference=files / "rows.csv", name="people"), models_dir=models)
    assert (models / "people/1/model.joblib").exists()
    with session_scope(engine) as session:
        assert list_versions(session) == []
    row = add_people(engine, files, models)
    assert row.version == 1
    with session_scope(engine) as session:
        verify(session, "people", 1, models_dir=models)


def test_failure_while_writing_leaves_neither_folder_nor_row(engine, files, models, monkeypatch):
    def fail(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(package, "write_rows", fail)
    with pytest.raises(ArtefactError, match=r"cannot be written \(No space left on device\): give this user"):
        add_people(engine, files, models)
    assert list((models / "people").iterdir()) == []
    with session_scope(engine) as session:
        assert list_versions(session) == []


def test_leftover_folder_of_another_model_is_not_overwritten(engine, files, models, tmp_path):
    add_people(engine, files, models)
    before = sha256(models / "people/1/model.joblib")
    new = make_engine(f"sqlite:///{tmp_path / 'new.db'}")
    Table.metadata.create_all(new)
    assert add_people(new, files, models, "second.joblib").version == 2
    with pytest.raises(ArtefactError, match=r"people/1 holds another artefact than people@1.*immutable"):
        add_people(new, files, models, "second.joblib", version=1, threshold=0.2)
    new.dispose()
    assert sha256(models / "people/1/model.joblib") == before


def test_incomplete_folder_in_the_way_is_named(engine, files, models):
    (models / "people/1").mkdir(parents=True)
    (models / "people/1/notes.txt").write_text("mine")
    with pytest.raises(ArtefactError, match="is in the way and is not a complete package: move it elsewhere"):
        add_people(engine, files, models)


def test_lost_race_for_a_version_is_a_conflict(engine, files, models, monkeypatch):
    row = add_people(engine, files, models)
    card = Card.model_validate(row.card)
    with session_scope(engine) as session:
        with pytest.raises(Conflict, match="has just been registered by someone else: try again"):
            registry._insert(session, card, uri="people/1", report={})
        assert len(list_versions(session)) == 1


# --- names ---------------------------------------------------------------------------------------------------------


def test_unknown_names_and_versions_are_answered_with_those_that_exist(engine, files, models):
    with session_scope(engine) as session, pytest.raises(NotFound, match="No model is registered yet: add one with"):
        resolve(session, "people")
    add_people(engine, files, models)
    with session_scope(engine) as session:
        with pytest.raises(NotFound, match="There is no model 'persons'; there are people"):
            resolve(session, "persons")
        with pytest.raises(NotFound, match="There is no version 7 of people; there are 1"):
            resolve(session, "people", 7)
        with pytest.raises(NotFound, match="No version of people has the alias 'challenger': promote one of 1"):
            resolve(session, "people", alias="challenger")
        with pytest.raises(Conflict, match="cannot be an alias"):
            promote(session, "people", 1, "Not An Alias")


def test_promotion_moves_the_alias_and_leaves_the_others(engine, files, models):
    add_people(engine, files, models)
    add_people(engine, files, models, "second.joblib", alias="challenger")
    with session_scope(engine) as session:
        promote(session, "people", 2)
        assert resolve(session, "people").version == 2
        assert resolve(session, "people", alias="challenger").version == 2
        promote(session, "people", 1)
        assert resolve(session, "people").version == 1
        assert resolve(session, "people", 2).version == 2
        with pytest.raises(NotFound):
            promote(session, "people", 3)


def test_bare_name_without_a_champion_is_the_newest_version_as_in_requests(engine, files, models):
    add_people(engine, files, models)
    add_people(engine, files, models, "second.joblib")
    with session_scope(engine) as session:
        assert find_reference(session, "people").version == 1  # the champion
        session.execute(delete(ModelAlias))  # as of candidates that were trained
        assert find_reference(session, "people").version == 2
        archive(session, "people", 2, Change("unused"))
        assert [find_reference(session, name).version for name in ("people", "people@2")] == [1, 2]
        archive(session, "people", 1, Change("unused"))
        with pytest.raises(NotFound, match="No version of people has the alias 'champion'"):
            find_reference(session, "people")


def test_verify_finds_a_card_that_was_edited(engine, files, models):
    row = add_people(engine, files, models)
    path = models / row.uri / "model.json"
    Card.load(path).model_copy(update={"threshold": 0.9}).dump(path)
    with session_scope(engine) as session, pytest.raises(CardError, match=r"not the card .*differs in threshold"):
        verify(session, "people", 1, models_dir=models)


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path, monkeypatch):
    """The command's own database and folder."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("RUNTIME", "sync")
    for name in ("DATABASE_URL", "MODELS_DIR", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    get_settings.cache_clear()
    get_engine.cache_clear()
    Table.metadata.create_all(get_engine())
    yield main
    get_engine().dispose()
    get_engine.cache_clear()
    get_settings.cache_clear()


def test_command_adds_lists_verifies_and_promotes(command, files, capsys):
    rows = str(files / "rows.csv")
    adding = ["--reference", rows, "--name", "people", "--target", "left", "--labels", "0=stays,1=leaves"]
    assert command(["add", str(files / "first.joblib"), *adding]) == 0
    assert capsys.readouterr().out.startswith("people@1 (champion): binary, 3 features, sha256 ")
    assert command(["add", str(files / "second.joblib"), *adding, "--threshold", "0.3"]) == 0
    assert command(["promote", "people@2"]) == 0
    assert command(["verify"]) == 0
    assert "people@2: sound. SHA-256, card and artefact agree" in capsys.readouterr().out
    assert command(["verify", "people", "--plan"]) == 0
    plan = capsys.readouterr().out.splitlines()
    assert plan[0].startswith("people@2: sound.")
    for line in (
        "Input: 3 features become 5 columns of float64.",
        "  columns 0 to 1: age, income (2 features)",
        "    StandardScaler [compiled]: x minus mean, divided by scale; 2 columns",
        "  columns 2 to 4: city (1 feature)",
        "    OneHotEncoder [compiled]: one column a category, by a table: city 3; 3 columns",
        "Estimator: LogisticRegression of sklearn, binary.",
        "  It answers by predict_proba; the second class is decided from 0.3 on.",
    ):
        assert line in plan
    assert sum(line.startswith("  * ") for line in plan) == 1  # the scorer that was chosen, among those measured
    assert plan[-1].startswith("Proof: ")
    assert command(["verify", "--plan"]) == 1
    assert "name the model" in capsys.readouterr().err
    assert command(["list", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["version"], line["aliases"]) for line in lines] == [(1, []), (2, ["champion"])]
    assert command(["list", "people"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_command_verifies_the_others_after_a_bad_version(command, files, capsys):
    adding = ["--reference", str(files / "rows.csv"), "--target", "left"]
    for name in ("altered", "edited", "invalid", "odd", "sound"):
        assert command(["add", str(files / "first.joblib"), "--name", name, *adding]) == 0
    models = get_settings().models
    (models / "altered/1/model.joblib").write_bytes(b"")
    (models / "edited/1/model.json").unlink()
    with session_scope() as session:
        row = resolve(session, "invalid")
        row.card = row.card | {"task": "ranking"}
        row = resolve(session, "odd")
        row.scorer = {}  # not one of our own errors
    capsys.readouterr()
    assert command(["verify"]) == 1
    output = capsys.readouterr()
    assert [line.partition(":")[0] for line in output.out.splitlines()] == ["sound@1"]
    starts = ("error: altered@1: ", "error: edited@1: ", "error: invalid@1: ", "error: odd@1: KeyError")
    lines = output.err.splitlines()
    assert len(lines) == len(starts)
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=True))
    assert "The registered card of invalid@1 is not valid: task: " in output.err
    assert command(["verify", "altered@1"]) == 1
    assert command(["verify", "sound@1"]) == 0


def test_command_says_whose_classes_the_labels_are_for(command, capsys):
    with pytest.raises(SystemExit):
        command(["add", "--help"])
    assert "the left side is the model's own class" in " ".join(capsys.readouterr().out.split())


def test_command_refuses_in_one_sentence_on_stderr(command, files, capsys):
    assert command(["promote", "people@2"]) == 1
    assert capsys.readouterr() == (
        "",
        "error: No model is registered yet: add one with `python -m shared.registry add`, or build the examples with "
        "`python -m examples.build`.\n",
    )
    assert command(["list"]) == 0
    assert "No model is registered yet" in capsys.readouterr().err
    assert command(["add", str(files / "none.joblib"), "--name", "x", "--reference", str(files / "rows.csv")]) == 1
    assert capsys.readouterr().err == f"error: There is no file {files / 'none.joblib'}: check the path.\n"
    Table.metadata.drop_all(get_engine())
    assert command(["list"]) == 1
    assert (
        "the tables are not there (no such table: model_versions): run `python -m alembic upgrade head`"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "arguments", [[], ["promote", "people"], ["add", "x", "--labels", "yes"], ["add", "x", "--version", "0"]]
)
def test_command_that_is_not_understood_exits_with_two(command, arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        command(arguments)
    assert stopped.value.code == 2


def test_command_runs_as_a_module(command):
    done = subprocess.run([sys.executable, "-m", "shared.registry", "list"], capture_output=True, text=True, check=True)
    assert done.stderr == "No model is registered yet.\n"


def test_registry_imports_none_of_the_heavy_libraries():
    heavy = ("sklearn", "pandas", "onnxruntime", "fsspec", "s3fs", "huggingface_hub", "redis")
    code = f"import sys, shared.commands.registry; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_model_versions_are_rows(engine, files, models):
    row = add_people(engine, files, models)
    assert isinstance(row, ModelVersion)
    assert row.created_at.tzinfo is not None
    assert Path(row.uri).is_absolute() is False


def test_models_folder_that_takes_no_files_is_refused_with_what_to_do(engine, files, tmp_path):
    (tmp_path / "models").write_text("a file")
    with Session(engine) as session, pytest.raises(ArtefactError, match="cannot be written"):
        registry.add(
            session,
            files / "first.joblib",
            AddOptions(reference=files / "rows.csv", name="m"),
            models_dir=tmp_path / "models",
        )

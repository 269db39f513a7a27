"""The example models: their data keeps its own rules, their metrics are honest, and building them twice is quick."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import examples.attrition.data
import examples.attrition.features
import examples.credit.data
import examples.credit.features
import examples.energy.data
import examples.energy.features
import examples.turnover.data
import examples.turnover.features
from examples.build import NAMES, build, main
from examples.credit.costs import MISSED_DEFAULT_COST, THRESHOLD, check_threshold, cost
from examples.credit.train import train as train_credit
from examples.frames import records
from shared.cards.card import Card
from shared.cards.validator import RowValidator
from shared.config.settings import get_settings
from shared.database.engine import get_engine, session_scope
from shared.errors import ArtefactError
from shared.packages.package import UNHASHED
from shared.registry.loading import load
from shared.registry.versions import list_versions, resolve
from shared.tables import Table
from tests.support.brief import prove_briefly

FOLDER = Path(__file__).parents[2] / "examples"
PARTS = {
    "attrition": (examples.attrition.data, examples.attrition.features),
    "credit": (examples.credit.data, examples.credit.features),
    "energy": (examples.energy.data, examples.energy.features),
    "turnover": (examples.turnover.data, examples.turnover.features),
}


def card_of(name):
    features = PARTS[name][1]
    return Card(
        name=name,
        version=1,
        task="regression" if name == "energy" else "binary",
        sha256=UNHASHED,
        features=features.FEATURES,
        rules=getattr(features, "RULES", []),
        missing="null" if name == "credit" else "refuse",
    )


def rows_of(name, count, **options):
    data, features = PARTS[name]
    return records(data.generate(count, **options)[[feature.name for feature in features.FEATURES]])


# --- data ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_generated_rows_keep_every_range_and_rule(name, seed):
    rows, faults = RowValidator(card_of(name)).validate_many(rows_of(name, 4_000, seed=seed))
    assert [row_faults for row_faults in faults if row_faults] == []
    assert len(rows) == 4_000


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_gives_the_same_rows_and_another_gives_others(name):
    assert rows_of(name, 50) == rows_of(name, 50)
    assert rows_of(name, 50, seed=1) != rows_of(name, 50, seed=2)


@pytest.mark.parametrize("name", NAMES)
def test_every_feature_is_described_and_the_example_row_is_valid(name):
    features = PARTS[name][1].FEATURES
    assert [feature.name for feature in features if not feature.description] == []
    assert [feature.name for feature in features if feature.example is None] == (
        ["bureau_score_c"] if name == "credit" else []
    )
    RowValidator(card_of(name)).validate({feature.name: feature.example for feature in features})


@pytest.mark.parametrize("name", NAMES)
def test_rows_to_try_are_valid(name):
    rows = json.loads((FOLDER / name / "rows.json").read_text(encoding="utf-8"))
    assert 3 <= len(rows) <= 5
    _, faults = RowValidator(card_of(name)).validate_many(rows)
    assert [row_faults for row_faults in faults if row_faults] == []


def test_attrition_has_its_clients_features_and_rules():
    names = [feature.name for feature in examples.attrition.features.FEATURES]
    assert len(names) == 43
    assert {"annes_sous_responsable_actuel", "augementation_salaire_precedente"} <= set(names)  # their spelling
    assert len(examples.attrition.features.RULES) == 9


def test_rows_to_try_hold_an_unknown_category_and_a_gap():
    for name in ("attrition", "turnover"):
        rows = json.loads((FOLDER / name / "rows.json").read_text(encoding="utf-8"))
        (poste,) = [feature for feature in PARTS[name][1].FEATURES if feature.name == "poste"]
        assert any(row["poste"] not in poste.categories for row in rows)
    credit = json.loads((FOLDER / "credit" / "rows.json").read_text(encoding="utf-8"))
    assert any(len(row) < len(examples.credit.features.FEATURES) for row in credit)


# --- credit: the threshold -----------------------------------------------------------------------------------------


def test_threshold_is_the_least_cost_of_true_probabilities():
    assert MISSED_DEFAULT_COST == 5.757
    assert THRESHOLD == 0.148
    probability = np.random.default_rng(5).beta(1, 9, 200_000)
    around = {threshold: cost(probability, probability, threshold) for threshold in (0.138, 0.147, 0.148, 0.149, 0.158)}
    assert min(around, key=around.get) == 0.148


def test_cost_counts_a_missed_default_as_its_price_in_refused_good_clients():
    defaulted, probability = np.array([1.0, 1.0, 0.0, 0.0]), np.array([0.1, 0.9, 0.1, 0.9])
    assert cost(defaulted, probability, 0.5) == pytest.approx((MISSED_DEFAULT_COST + 1) / 4)


def test_training_stops_where_the_threshold_is_not_the_one_to_use():
    rng = np.random.default_rng(6)
    probability = rng.beta(1, 9, 50_000)
    check_threshold((rng.random(50_000) < probability).astype(float), probability)
    with pytest.raises(ValueError, match=r"0\.148 costs"):  # scores three times too low
        check_threshold((rng.random(50_000) < probability).astype(float), probability / 3)


@pytest.mark.flow
def test_credit_is_trained_with_missing_values_and_its_threshold_holds():
    package = train_credit()
    metrics = package.card.metrics
    assert package.card.threshold == metrics["best_threshold_expected"] == 0.148
    assert metrics["best_threshold_observed"] == pytest.approx(0.148, abs=0.02)
    assert metrics["mean_cost"] <= 1.02 * metrics["mean_cost_of_best_threshold"]
    assert metrics["roc_auc"] > 0.75
    assert any(value is None for row in package.reference for value in row.values())


# --- build ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setenv("RUNTIME", "sync")
    for name in ("DATABASE_URL", "MODELS_DIR", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    prove_briefly(monkeypatch)
    new_database()
    yield tmp_path
    get_engine().dispose()
    get_engine.cache_clear()
    get_settings.cache_clear()


def new_database():
    get_settings.cache_clear()
    get_engine.cache_clear()
    Path(get_settings().data_dir / "guichet.db").unlink(missing_ok=True)
    Table.metadata.create_all(get_engine())


@pytest.mark.long
def test_build_trains_once_and_registers_again_in_a_new_database(data_dir, capsys):
    assert main(["--only", "energy"]) == 0
    first = capsys.readouterr().out
    assert first.startswith("energy@1 (champion): regression, 19 features, sha256 ")
    assert "decisions that differ: 0" in first
    assert "; trained in " in first
    assert main(["--only", "energy"]) == 0
    assert capsys.readouterr().out.endswith("; there already\n")
    get_engine().dispose()
    new_database()
    assert main(["--only", "energy"]) == 0
    assert capsys.readouterr().out.endswith("; registered again\n")


@pytest.mark.long
def test_build_restores_files_that_are_gone_under_the_same_version(data_dir):
    models = data_dir / "models"
    row, _ = build("energy", models_dir=models)
    for file in (models / row.uri).iterdir():
        file.unlink()
    (models / row.uri).rmdir()
    again, done = build("energy", models_dir=models)
    assert done.startswith("trained in")
    assert (again.id, again.sha256) == (row.id, row.sha256)  # training is reproducible to the byte


@pytest.mark.long
def test_build_does_not_overwrite_a_damaged_file(data_dir, capsys):
    row, _ = build("energy", models_dir=data_dir / "models")
    artefact = data_dir / "models" / row.uri / "model.joblib"
    artefact.write_bytes(b"damaged")
    assert main(["--only", "energy"]) == 1
    assert "move the folder away if it is damaged" in capsys.readouterr().err
    with session_scope() as session, pytest.raises(ArtefactError, match="SHA-256"):
        load(resolve(session, "energy"), data_dir / "models")


def test_build_says_that_the_database_is_not_ready(data_dir, capsys):
    Table.metadata.drop_all(get_engine())
    assert main(["--only", "energy"]) == 1
    assert "run `python -m alembic upgrade head` first" in capsys.readouterr().err


@pytest.fixture
def built(data_dir, monkeypatch, models_dir):
    """The folder of models that another process has trained, and that this database does not know yet."""
    monkeypatch.setenv("MODELS_DIR", str(models_dir))
    get_settings.cache_clear()
    return models_dir


def test_build_imports_no_scikit_learn_when_there_is_nothing_to_do(built):
    build("energy", models_dir=built)
    code = "import sys, examples.build as b; b.main(['--only', 'energy']); print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("there already\nFalse\n")


@pytest.mark.flow
def test_all_examples_are_served_as_their_pipelines_score(built):
    assert main([]) == 0
    with session_scope(read_only=True) as session:
        rows = list_versions(session)
    assert [row.name for row in rows] == sorted(NAMES)
    for row in rows:
        assert row.scorer["decisions_differ"] == 0
        assert row.card["metrics"]["holdout_rows"] >= 1_000
        model = load(row, built)
        to_try = json.loads((FOLDER / row.name / "rows.json").read_text(encoding="utf-8"))
        validator = RowValidator(model.card)
        scores = model.scorer.score([validator.validate(row) for row in to_try])
        assert np.isfinite(scores.prediction).all()
    metrics = {row.name: row.card["metrics"] for row in rows}
    assert metrics["attrition"]["roc_auc"] > 0.75
    assert metrics["energy"]["r2"] > 0.9
    assert metrics["turnover"]["roc_auc"] > 0.75

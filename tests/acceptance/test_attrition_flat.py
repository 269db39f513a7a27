"""The flat attrition client, at plain /predict: 30 fields at the top level; `Prediction`, `Probabilite_depart` back."""

from typing import Any

import httpx2
import pytest

from shared.database.engine import make_engine, reader
from tests.acceptance.conftest import CONTRACTS
from tests.contracts.helpers import new_id
from tests.support.stack import Stack

CONTRACT = CONTRACTS["attrition_flat"]
FEATURES = {feature["name"]: feature["type"] for feature in CONTRACT["features"]}
ROW: dict[str, Any] = {
    "genre": "F",
    "statut_marital": "Célibataire",
    "departement": "Commercial",
    "poste": "Représentant Commercial",
    "domaine_etude": "Marketing",
    "frequence_deplacement": "Frequent",
    "heure_supplementaires": True,
    "evolution_cat_evol": "Baisse",
    "categorie_employe": "Junior",
    "satisfaction_employee_nature_travail": 1,
    "nombre_participation_pee": 0,
    "ecart_note_evaluation": -1,
    "revenu_mensuel": 1800,
    "distance_domicile_travail": 28,
    "satisfaction_globale": 1.25,
    "niveau_education": 3,
    "note_evaluation_actuelle": 3,
    "satisfaction_employee_equipe": 1,
    "age": 24,
    "revenu_par_annee_experience_interne": 900,
    "satisfaction_employee_equilibre_pro_perso": 1,
    "nombre_experiences_precedentes": 3,
    "annees_dans_l_entreprise": 1,
    "nb_formations_suivies": 0,
    "revenu_par_annee_experience_totale": 450,
    "ratio_sans_promotion": 100,
    "satisfaction_employee_environnement": 2,
    "exp_hors_entreprise": 2,
    "mobilite_promotion": 0,
    "annees_depuis_la_derniere_promotion": 1,
}
STAYS = {
    "statut_marital": "Marié(e)",
    "poste": "Manager",
    "frequence_deplacement": "Aucun",
    "heure_supplementaires": False,
    "satisfaction_globale": 4.0,
    "revenu_mensuel": 5200,
    "nombre_participation_pee": 1,
}
WRONG = {"integer": ["douze", 1.5, True], "number": ["douze", True], "boolean": ["oui", 1], "string": [12, False]}


@pytest.fixture
def client(front_client: httpx2.Client) -> httpx2.Client:
    return front_client


def check_refused(answer: httpx2.Response, name: str) -> None:
    assert answer.status_code == CONTRACT["refusal"]["status"] == 422, answer.text
    assert name in answer.text
    assert answer.json()["detail"]


def check_answered(answer: httpx2.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    assert list(body) == list(CONTRACT["response"]) == ["Prediction", "Probabilite_depart"]
    assert 0 <= body["Probabilite_depart"] <= 1
    leaves = body["Probabilite_depart"] >= CONTRACT["threshold"]
    assert body["Prediction"] == CONTRACT["labels"]["1" if leaves else "0"]
    return body


def test_contract_is_known_in_full() -> None:
    assert len(FEATURES) == 30
    assert list(ROW) == list(FEATURES)


def test_fields_at_the_top_level_are_answered_with_the_label_and_its_probability(client: httpx2.Client) -> None:
    assert check_answered(client.post("/predict", json=ROW))["Prediction"] == "Part"
    assert check_answered(client.post("/predict", json=ROW | STAYS))["Prediction"] == "Reste"


def test_every_field_that_is_missing_once_is_refused(client: httpx2.Client) -> None:
    for name in FEATURES:
        check_refused(client.post("/predict", json={key: value for key, value in ROW.items() if key != name}), name)


def test_every_field_of_a_wrong_type_once_is_refused(client: httpx2.Client) -> None:
    for name, kind in FEATURES.items():
        for value in (*WRONG[kind], None, [1], {"a": 1}):
            answer = client.post("/predict", json=ROW | {name: value})
            check_refused(answer, name)
            assert "douze" not in answer.text


def test_whole_numbers_are_taken_where_a_number_is_asked(client: httpx2.Client) -> None:
    check_answered(client.post("/predict", json=ROW | {"satisfaction_globale": 3}))


def test_texts_that_were_never_seen_are_taken(client: httpx2.Client) -> None:
    texts = [name for name, kind in FEATURES.items() if kind == "string"]
    assert len(texts) == 8
    check_answered(client.post("/predict", json=ROW | dict.fromkeys(texts, "Jamais vu")))


def test_call_is_stored_as_the_clients_own_tables_had_it(front: Stack, client: httpx2.Client) -> None:
    inputs, predictions = CONTRACT["also"]["stored per call"]
    assert inputs == "inputs: the 30 fields, created_at"
    assert predictions == "predictions: input_id, prediction_label, prediction_proba, model_version, created_at"
    post = new_id()
    answer = check_answered(client.post("/predict", json=ROW | {"poste": post}))
    row = ROW | {"poste": post}
    engine = make_engine(front.database_url)
    try:
        with reader(engine).connect() as connection:
            columns = ", ".join(f"i.{name}" for name in FEATURES)
            [stored] = connection.exec_driver_sql(
                f"SELECT i.id, i.created_at, {columns} FROM inputs i WHERE i.poste = '{post}'"
            ).mappings()
            [predicted] = connection.exec_driver_sql(
                "SELECT prediction_label, prediction_proba, model_version, created_at FROM predictions "
                f"WHERE input_id = '{stored['id']}'"
            ).mappings()
            connection.exec_driver_sql("SELECT * FROM employees_dataset").all()
    finally:
        engine.dispose()
    assert {name: stored[name] for name in FEATURES} == row
    assert (predicted["prediction_label"], predicted["prediction_proba"]) == tuple(answer.values())
    assert predicted["model_version"] == 1
    assert predicted["created_at"] >= stored["created_at"]

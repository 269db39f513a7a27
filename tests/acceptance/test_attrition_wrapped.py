"""The wrapped attrition client: 43 features inside `features`, 400 with a sentence for a row that does not fit.

Its model is a LightGBM pipeline that another scikit-learn saved; its rules came with a contract, and no code.
"""

import csv
from typing import Any

import httpx2
import pytest

from tests.acceptance.conftest import CONTRACTS, Door
from tests.support.stack import ROOT

CONTRACT = CONTRACTS["attrition_wrapped"]
FEATURES = {feature["name"]: feature for feature in CONTRACT["features"]}
IN_RULES = [name for name in FEATURES if any(name in rule for rule in CONTRACT["rules"])]
ROW: dict[str, Any] = {
    "age": 36,
    "age_debut_carriere": 23,
    "annee_experience_totale": 12,
    "annees_dans_l_entreprise": 12,
    "annees_dans_le_poste_actuel": 8,
    "annees_depuis_la_derniere_promotion": 2,
    "annee_derniere_promotion": 2022,
    "annes_sous_responsable_actuel": 7,
    "genre": 1,
    "statut_marital": "Divorcé(e)",
    "niveau_education": 1,
    "domaine_etude": "Transformation Digitale",
    "departement": "Consulting",
    "poste": "Consultant",
    "niveau_hierarchique_poste": 2,
    "frequence_deplacement": 1,
    "revenu_mensuel": 3342.67,
    "augementation_salaire_precedente": 5.5,
    "salaire_par_annee_exp": 39929.4,
    "heure_supplementaires": 0,
    "distance_domicile_travail": 5.9,
    "distance_x_deplacement": 5.9,
    "impact_trajet_sur_satisfaction": 0.15,
    "note_evaluation_actuelle": 4.7,
    "note_evaluation_precedente": 3.8,
    "evolution_note": 0.9,
    "satisfaction_employee_nature_travail": 3.5,
    "satisfaction_employee_environnement": 3.0,
    "satisfaction_employee_equilibre_pro_perso": 4.0,
    "satisfaction_employee_equipe": 4.0,
    "satisfaction_moyenne": 3.625,
    "score_satisfaction_global": 3.625,
    "delta_satisfaction_equipe": 0.375,
    "stagnation_poste": 0,
    "stagnation_profonde": 0,
    "taux_volatilite": 0.0,
    "ratio_fidelite_entreprise": 1.0,
    "ratio_poste_vs_anciennete": 0.667,
    "anciennete_x_satisfaction": 43.5,
    "nombre_experiences_precedentes": 0,
    "nb_formations_suivies": 1,
    "formations_par_annee": 0.083,
    "nombre_participation_pee": 2,
}
# For each rule, a change to the row that breaks it and no other.
BREAKING: dict[str, dict[str, Any]] = {
    "age_debut_carriere < age": {
        "age_debut_carriere": 36,
        "annee_experience_totale": 0,
        "annees_dans_l_entreprise": 0,
        "annees_dans_le_poste_actuel": 0,
        "annees_depuis_la_derniere_promotion": 0,
        "annes_sous_responsable_actuel": 0,
    },
    "age_debut_carriere + annee_experience_totale <= age": {"annee_experience_totale": 14},
    "annees_dans_le_poste_actuel <= annees_dans_l_entreprise": {"annees_dans_le_poste_actuel": 13},
    "annees_dans_l_entreprise <= annee_experience_totale": {"annees_dans_l_entreprise": 13},
    "annees_depuis_la_derniere_promotion <= annees_dans_l_entreprise": {"annees_depuis_la_derniere_promotion": 13},
    "annes_sous_responsable_actuel <= annees_dans_le_poste_actuel": {"annes_sous_responsable_actuel": 9},
    "evolution_note == note_evaluation_actuelle - note_evaluation_precedente": {"evolution_note": 0.5},
    "abs(salaire_par_annee_exp - 12 * revenu_mensuel) <= 6 * revenu_mensuel": {"salaire_par_annee_exp": 61_000.0},
    "formations_par_annee <= nb_formations_suivies": {"formations_par_annee": 1.5},
}


@pytest.fixture
def client(door: Door) -> httpx2.Client:
    return door("leavers")


def post(client: httpx2.Client, row: dict[str, Any]) -> httpx2.Response:
    return client.post("/predict", json={"features": row})


def check_refused(answer: httpx2.Response, *mentioned: str) -> None:
    """Check the client's own refusal: 400 with a sentence that names what is wrong."""
    assert answer.status_code == CONTRACT["refusal"]["status"] == 400, answer.text
    assert list(answer.json()) == ["detail"]
    detail = answer.json()["detail"]
    assert isinstance(detail, str)
    assert detail.endswith(".")
    for name in mentioned:
        assert name in detail


def check_answered(answer: httpx2.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    assert list(body) == list(CONTRACT["response"]) == ["prediction", "probability"]
    assert 0 <= body["probability"] <= 1
    assert body["prediction"] == int(body["probability"] >= CONTRACT["threshold"])
    assert isinstance(body["prediction"], int)
    return body


def wrong_type(kind: str) -> Any:
    return {"integer": "trente", "number": "beaucoup", "string": 12}[kind]


def out_of_range(feature: dict[str, Any]) -> list[Any]:
    """One value beyond each limit of a feature."""
    rows: list[Any] = []
    step = 1 if feature["type"] == "integer" else 0.01
    if "min" in feature:
        rows.append(feature["min"] - step)
    if "max" in feature:
        rows.append(feature["max"] + step)
    if "exclusive_min" in feature:
        rows.append(feature["exclusive_min"])
    if "min_length" in feature:
        rows.append("x" * (feature["min_length"] - 1))
    if "max_length" in feature:
        rows.append("x" * (feature["max_length"] + 1))
    return rows


def test_contract_is_known_in_full() -> None:
    assert len(FEATURES) == len(ROW) == 43
    assert ROW.keys() == FEATURES.keys()
    assert list(BREAKING) == CONTRACT["rules"]
    assert len(BREAKING) == 9


def test_row_is_answered_with_a_prediction_and_its_probability(client: httpx2.Client) -> None:
    check_answered(post(client, ROW))


def test_scores_are_those_that_the_model_gave_where_it_was_trained(client: httpx2.Client) -> None:
    with (ROOT / "tests" / "foreign" / "rows.csv").open(encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: float(row["score"]))
    for row in (*rows[:3], *rows[-3:]):
        kinds = {"integer": int, "number": float, "string": str}
        typed = {name: kinds[feature["type"]](row[name]) for name, feature in FEATURES.items()}
        assert check_answered(post(client, typed))["probability"] == pytest.approx(float(row["score"]), abs=1e-6)
    assert check_answered(post(client, typed))["prediction"] == 1  # the last leaves, the first stays


def test_every_feature_that_is_missing_once_is_named(client: httpx2.Client) -> None:
    for name in FEATURES:
        check_refused(post(client, {key: value for key, value in ROW.items() if key != name}), name)


def test_every_feature_of_a_wrong_type_once_is_named_and_its_value_is_not(client: httpx2.Client) -> None:
    for name, feature in FEATURES.items():
        answer = post(client, ROW | {name: wrong_type(feature["type"])})
        check_refused(answer, name)
        assert "trente" not in answer.text
        assert "beaucoup" not in answer.text
        check_refused(post(client, ROW | {name: None}), name)


def test_every_limit_that_is_passed_once_is_refused(client: httpx2.Client) -> None:
    count = 0
    for name, feature in FEATURES.items():
        for value in out_of_range(feature):
            check_refused(post(client, ROW | {name: value}), name)
            count += 1
    assert count == sum(len(set(feature) - {"name", "type", "description"}) for feature in FEATURES.values())


@pytest.mark.parametrize("end", ["min", "max"])
def test_every_limit_itself_is_taken(client: httpx2.Client, end: str) -> None:
    limits = {name: feature[end] for name, feature in FEATURES.items() if end in feature and name not in IN_RULES}
    assert len(limits) > 15
    check_answered(post(client, ROW | limits))


@pytest.mark.parametrize("rule", CONTRACT["rules"])
def test_row_that_breaks_a_rule_is_refused(client: httpx2.Client, rule: str) -> None:
    names = [name for name in IN_RULES if name in rule.replace("(", " ").split()]
    check_refused(post(client, ROW | BREAKING[rule]), *names)


def test_unknown_categories_are_taken(client: httpx2.Client) -> None:
    texts = [name for name, feature in FEATURES.items() if feature["type"] == "string"]
    assert len(texts) == 4
    check_answered(post(client, ROW | dict.fromkeys(texts, "Jamais vu")))


def test_body_without_the_wrapper_is_refused(client: httpx2.Client) -> None:
    check_refused(client.post("/predict", json=ROW), "features")
    check_refused(client.post("/predict", json={}), "features")

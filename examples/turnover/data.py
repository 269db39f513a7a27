"""Synthetic employees: no row describes a real person, every number comes from the seeded generator below.

The derived columns (averages, gaps, income per year) are computed from what they summarise, as whole numbers where
the client's contract has integers.
"""

from typing import Any

import numpy as np
import pandas as pd

TARGET = "a_quitte_l_entreprise"

GENRES = ["F", "M"]
STATUTS = ["Célibataire", "Marié(e)", "Divorcé(e)"]
DEPARTEMENTS = ["Consulting", "Commercial", "Ressources Humaines"]
POSTES = ["Consultant", "Tech Lead", "Manager", "Cadre Commercial", "Représentant Commercial", "Ressources Humaines"]
POSTES_OF = {"Consulting": POSTES[:3], "Commercial": POSTES[2:5], "Ressources Humaines": [POSTES[2], POSTES[5]]}
DOMAINES = ["Infra & Cloud", "Transformation Digitale", "Marketing", "Entrepreunariat", "Ressources Humaines", "Autre"]
DEPLACEMENTS = ["Aucun", "Occasionnel", "Frequent"]
EVOLUTIONS = ["Baisse", "Stable", "Hausse"]
CATEGORIES = ["Junior", "Confirmé", "Senior"]

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


def generate(rows: int = 4_000, *, seed: int = 20_240_604) -> pd.DataFrame:
    """Return `rows` synthetic employees: the 30 features and the 0/1 column `a_quitte_l_entreprise`."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {}
    columns |= _person(rng, rows)
    columns |= _career(rng, columns["age"])
    columns |= _job(rng, columns["annees_dans_l_entreprise"] + columns["exp_hors_entreprise"])
    columns |= _opinions(rng, rows)
    columns |= _derived(columns)
    columns[TARGET] = (rng.random(rows) < 1 / (1 + np.exp(-_log_odds(columns)))).astype(np.int64)
    return pd.DataFrame(columns)


def _person(rng: np.random.Generator, rows: int) -> dict[str, Any]:
    return {
        "age": np.clip(np.round(rng.normal(37, 9, rows)), 18, 62).astype(np.int64),
        "genre": rng.choice(GENRES, rows, p=[0.42, 0.58]).astype(object),
        "statut_marital": rng.choice(STATUTS, rows, p=[0.33, 0.45, 0.22]).astype(object),
        "domaine_etude": rng.choice(DOMAINES, rows, p=[0.36, 0.27, 0.13, 0.11, 0.04, 0.09]).astype(object),
        "niveau_education": rng.choice([1, 2, 3, 4, 5], rows, p=[0.12, 0.19, 0.39, 0.27, 0.03]),
        "distance_domicile_travail": np.clip(np.round(rng.gamma(1.5, 8, rows)), 1, 60).astype(np.int64),
    }


def _career(rng: np.random.Generator, age: Any) -> dict[str, Any]:  # noqa: ANN401 - an array of integers
    rows = len(age)
    experience = np.floor((age - 18) * rng.beta(4, 1.6, rows)).astype(np.int64)
    inside = np.floor(experience * rng.beta(1.3, 1.4, rows)).astype(np.int64)
    since = np.floor((inside + 1) * rng.beta(0.8, 2.2, rows)).astype(np.int64)
    outside = experience - inside
    return {
        "annees_dans_l_entreprise": inside,
        "exp_hors_entreprise": outside,
        "annees_depuis_la_derniere_promotion": since,
        "nombre_experiences_precedentes": np.where(outside > 0, 1 + rng.binomial(8, np.minimum(outside / 40, 0.9)), 0),
    }


def _job(rng: np.random.Generator, experience: Any) -> dict[str, Any]:  # noqa: ANN401 - an array of integers
    rows = len(experience)
    department = rng.choice(DEPARTEMENTS, rows, p=[0.64, 0.30, 0.06])
    post = np.empty(rows, dtype=object)
    for name, posts in POSTES_OF.items():
        here = department == name
        post[here] = rng.choice(np.array(posts, dtype=object), here.sum())
    return {
        "departement": department.astype(object),
        "poste": post,
        "frequence_deplacement": rng.choice(DEPLACEMENTS, rows, p=[0.13, 0.68, 0.19]).astype(object),
        "heure_supplementaires": rng.random(rows) < 0.28,
        "revenu_mensuel": np.round(1_900 * 1.035**experience * rng.lognormal(0, 0.25, rows)).astype(np.int64),
        "nb_formations_suivies": rng.binomial(6, 0.45, rows),
        "nombre_participation_pee": rng.choice([0, 1, 2, 3], rows, p=[0.43, 0.40, 0.11, 0.06]),
    }


def _opinions(rng: np.random.Generator, rows: int) -> dict[str, Any]:
    mood = rng.normal(0, 0.5, rows)  # a content person answers every question a little higher

    def answers() -> Any:  # noqa: ANN401 - an array of integers
        return np.clip(np.round(2.7 + mood + rng.normal(0, 0.9, rows)), 1, 4).astype(np.int64)

    now = rng.choice([2, 3, 4], rows, p=[0.1, 0.7, 0.2])
    return {
        "satisfaction_employee_nature_travail": answers(),
        "satisfaction_employee_environnement": answers(),
        "satisfaction_employee_equilibre_pro_perso": answers(),
        "satisfaction_employee_equipe": answers(),
        "note_evaluation_actuelle": now,
        "ecart_note_evaluation": now - np.clip(now + rng.choice([-1, 0, 1], rows, p=[0.3, 0.5, 0.2]), 1, 4),
    }


def _derived(columns: dict[str, Any]) -> dict[str, Any]:
    inside, since = columns["annees_dans_l_entreprise"], columns["annees_depuis_la_derniere_promotion"]
    income, gap = columns["revenu_mensuel"], columns["ecart_note_evaluation"]
    topics = ("nature_travail", "environnement", "equilibre_pro_perso", "equipe")
    level = np.where(columns["age"] < 30, 0, np.where((columns["age"] < 45) | (inside < 5), 1, 2))
    return {
        "satisfaction_globale": sum(columns[f"satisfaction_employee_{topic}"] for topic in topics) / 4,
        "evolution_cat_evol": np.array(EVOLUTIONS, dtype=object)[np.sign(gap) + 1],
        "categorie_employe": np.array(CATEGORIES, dtype=object)[level],
        "revenu_par_annee_experience_interne": income // (inside + 1),
        "revenu_par_annee_experience_totale": income // (inside + columns["exp_hors_entreprise"] + 1),
        "ratio_sans_promotion": np.round(100 * since / np.maximum(inside, 1)).astype(np.int64),
        "mobilite_promotion": inside - since,
    }


def _log_odds(columns: dict[str, Any]) -> Floats:
    """Return the log-odds of leaving: workload, satisfaction, pay, tenure, travel."""
    experience = columns["annees_dans_l_entreprise"] + columns["exp_hors_entreprise"]
    log_odds = (
        -3.2
        + 1.5 * columns["heure_supplementaires"]
        - 1.1 * (columns["satisfaction_globale"] - 2.7)
        - 1.8 * np.log(columns["revenu_mensuel"] / (1_900 * 1.035**experience))
        + 0.9 * np.exp(-columns["annees_dans_l_entreprise"] / 2)
        + 0.6 * (columns["statut_marital"] == "Célibataire")
        + 0.7 * (columns["frequence_deplacement"] == "Frequent")
        + 0.6 * (columns["poste"] == "Représentant Commercial")
        + 0.02 * columns["distance_domicile_travail"]
        + 0.008 * columns["ratio_sans_promotion"]
        + 0.12 * columns["nombre_experiences_precedentes"]
        - 0.5 * (columns["nombre_participation_pee"] > 0)
        - 0.3 * columns["ecart_note_evaluation"]
    )
    return np.asarray(log_odds, dtype=np.float64)

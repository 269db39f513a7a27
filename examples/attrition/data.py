"""Synthetic employees: no row describes a real person, every number comes from the seeded generator below.

Each row obeys the ranges and the nine rules of the card by construction: durations are drawn inside one
another (career, company, position, manager), and derived columns are computed from what they summarise.
"""

from typing import Any

import numpy as np
import pandas as pd

TARGET = "a_quitte_l_entreprise"
SURVEY_YEAR = 2024

STATUTS = ["Célibataire", "Marié(e)", "Divorcé(e)"]
DOMAINES = [
    "Infra & Cloud",
    "Transformation Digitale",
    "Marketing",
    "Entrepreunariat",
    "Ressources Humaines",
    "Autre",
]
DEPARTEMENTS = ["Consulting", "Commercial", "Ressources Humaines"]
POSTES = {
    "Consulting": ["Consultant", "Assistant de Direction", "Tech Lead", "Manager", "Senior Manager"],
    "Commercial": ["Représentant Commercial", "Cadre Commercial", "Manager"],
    "Ressources Humaines": ["Ressources Humaines", "Manager"],
}

Ints = np.ndarray[tuple[int], np.dtype[np.int64]]
Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


def generate(rows: int = 6_000, *, seed: int = 20_240_601) -> pd.DataFrame:
    """Return `rows` synthetic employees: the 43 features and the 0/1 column `a_quitte_l_entreprise`."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {}
    columns |= _career(rng, rows)
    columns |= _job(rng, rows, experience=columns["annee_experience_totale"])
    columns |= _reviews(rng, rows)
    columns |= _commute(
        rng,
        rows,
        travel=columns["frequence_deplacement"],
        balance=columns["satisfaction_employee_equilibre_pro_perso"],
    )
    columns |= _derived(rng, columns)
    columns[TARGET] = (rng.random(rows) < _sigmoid(_log_odds(columns))).astype(np.int64)
    return pd.DataFrame(columns)


def _career(rng: np.random.Generator, rows: int) -> dict[str, Any]:
    age = np.clip(np.round(rng.normal(37, 9.5, rows)), 18, 64).astype(np.int64)
    start = np.minimum(16 + rng.binomial(12, 0.45, rows), age - 1)
    gap = np.minimum(rng.poisson(0.8, rows), age - start)
    experience = age - start - gap
    company = np.floor(experience * rng.beta(1.3, 1.5, rows)).astype(np.int64)
    company = np.where(rng.random(rows) < 0.12, experience, company)  # some have known one employer only
    position = np.floor(company * rng.beta(2.2, 1.6, rows)).astype(np.int64)
    promotion = np.floor(company * rng.beta(0.8, 2.0, rows)).astype(np.int64)
    manager = np.floor(position * rng.beta(2.5, 1.2, rows)).astype(np.int64)
    elsewhere = experience - company
    return {
        "age": age,
        "age_debut_carriere": start,
        "annee_experience_totale": experience,
        "annees_dans_l_entreprise": company,
        "annees_dans_le_poste_actuel": position,
        "annees_depuis_la_derniere_promotion": promotion,
        "annee_derniere_promotion": SURVEY_YEAR - promotion,
        "annes_sous_responsable_actuel": manager,
        "nombre_experiences_precedentes": np.where(
            elsewhere > 0, 1 + rng.binomial(8, np.minimum(elsewhere / 40, 0.9)), 0
        ),
    }


def _job(rng: np.random.Generator, rows: int, *, experience: Ints) -> dict[str, Any]:
    department = rng.choice(DEPARTEMENTS, rows, p=[0.64, 0.30, 0.06])
    level = np.clip(np.round(1 + experience / 8 + rng.normal(0, 0.8, rows)), 1, 5).astype(np.int64)
    post = np.empty(rows, dtype=object)
    for name, posts in POSTES.items():
        here = department == name
        # Higher levels hold the posts that come later in the list.
        rank = np.clip(np.round((level[here] - 1) / 4 * (len(posts) - 1) + rng.normal(0, 0.7, here.sum())), 0, None)
        post[here] = np.array(posts, dtype=object)[np.minimum(rank, len(posts) - 1).astype(np.int64)]
    income = np.round(1_950 * 1.42 ** (level - 1) * rng.lognormal(0, 0.16, rows), 2)
    return {
        "genre": rng.choice([0, 1, 2], rows, p=[0.40, 0.58, 0.02]),
        "statut_marital": rng.choice(STATUTS, rows, p=[0.33, 0.45, 0.22]).astype(object),
        "niveau_education": rng.choice([1, 2, 3, 4, 5], rows, p=[0.12, 0.19, 0.39, 0.27, 0.03]),
        "domaine_etude": rng.choice(DOMAINES, rows, p=[0.36, 0.27, 0.13, 0.11, 0.04, 0.09]).astype(object),
        "departement": department.astype(object),
        "poste": post,
        "niveau_hierarchique_poste": level,
        "frequence_deplacement": rng.choice([0, 1, 2], rows, p=[0.13, 0.68, 0.19]),
        "revenu_mensuel": income,
        "augementation_salaire_precedente": np.round(np.clip(rng.gamma(5, 2.6, rows), 0, 30), 1),
        # Bonuses and unpaid leave move the year away from twelve months' pay, by at most 40 %.
        "salaire_par_annee_exp": np.round(12 * income * np.clip(rng.normal(1.02, 0.09, rows), 0.6, 1.4), 2),
        "heure_supplementaires": (rng.random(rows) < 0.28).astype(np.int64),
        "nb_formations_suivies": rng.binomial(6, 0.45, rows),
        "nombre_participation_pee": rng.choice([0, 1, 2, 3], rows, p=[0.43, 0.40, 0.11, 0.06]),
    }


def _reviews(rng: np.random.Generator, rows: int) -> dict[str, Any]:
    before = np.round(np.clip(rng.normal(3.1, 0.5, rows), 1, 5), 1)
    now = np.round(np.clip(before + rng.normal(0.1, 0.4, rows), 1, 5), 1)
    mood = rng.normal(0, 0.55, rows)  # a content person answers every question a little higher

    def answers(mean: float) -> Floats:
        return np.round(np.clip(mean + mood + rng.normal(0, 0.85, rows), 0, 5) * 2) / 2

    work, place, balance, team = answers(3.2), answers(3.1), answers(3.0), answers(3.3)
    mean = np.round((work + place + balance + team) / 4, 3)
    return {
        "note_evaluation_actuelle": now,
        "note_evaluation_precedente": before,
        "evolution_note": np.round(now - before, 1),
        "satisfaction_employee_nature_travail": work,
        "satisfaction_employee_environnement": place,
        "satisfaction_employee_equilibre_pro_perso": balance,
        "satisfaction_employee_equipe": team,
        "satisfaction_moyenne": mean,
        "score_satisfaction_global": np.round(0.35 * work + 0.2 * place + 0.25 * balance + 0.2 * team, 3),
        "delta_satisfaction_equipe": np.round(team - mean, 3),
    }


def _commute(rng: np.random.Generator, rows: int, *, travel: Ints, balance: Floats) -> dict[str, Any]:
    distance = np.round(np.clip(rng.gamma(1.6, 7.5, rows), 0.5, 80), 1)
    return {
        "distance_domicile_travail": distance,
        "distance_x_deplacement": np.round(distance * travel, 1),
        "impact_trajet_sur_satisfaction": np.round(np.clip(distance / 40 * (5 - balance), 0, 5), 2),
    }


def _derived(rng: np.random.Generator, columns: dict[str, Any]) -> dict[str, Any]:
    company, position = columns["annees_dans_l_entreprise"], columns["annees_dans_le_poste_actuel"]
    promotion, experience = columns["annees_depuis_la_derniere_promotion"], columns["annee_experience_totale"]
    return {
        "stagnation_poste": ((position >= 4) & (promotion >= 3)).astype(np.int64),
        "stagnation_profonde": ((position >= 7) & (promotion >= 6)).astype(np.int64),
        "taux_volatilite": np.round(np.minimum(columns["nombre_experiences_precedentes"] / (experience + 1), 1), 3),
        "ratio_fidelite_entreprise": np.round(company / np.maximum(experience, 1), 3),
        "ratio_poste_vs_anciennete": np.round(position / np.maximum(company, 1), 3),
        "anciennete_x_satisfaction": np.round(company * columns["satisfaction_moyenne"], 2),
        # Never above the number itself: the divisor is at least one year.
        "formations_par_annee": np.round(columns["nb_formations_suivies"] / np.maximum(company, 1), 3),
    }


def _log_odds(columns: dict[str, Any]) -> Floats:
    """Return the log-odds of leaving: workload, pay for the level, tenure, satisfaction, interactions."""
    overtime = columns["heure_supplementaires"]
    expected_pay = 1_950 * 1.42 ** (columns["niveau_hierarchique_poste"] - 1)
    log_odds = (
        -3.3
        + 1.25 * overtime
        + 0.9 * overtime * (columns["satisfaction_employee_equilibre_pro_perso"] < 2.5)
        - 0.95 * (columns["satisfaction_moyenne"] - 3.1)
        - 3.0 * np.log(columns["revenu_mensuel"] / expected_pay)
        + 1.1 * np.exp(-columns["annees_dans_l_entreprise"] / 2.0)
        + 0.75 * (columns["age"] < 28)
        + 0.55 * columns["stagnation_poste"]
        + 0.6 * columns["stagnation_profonde"]
        + 0.5 * (columns["statut_marital"] == "Célibataire")
        + 0.45 * (columns["poste"] == "Représentant Commercial")
        + 0.022 * columns["distance_x_deplacement"]
        + 1.6 * columns["taux_volatilite"]
        - 0.6 * (columns["nombre_participation_pee"] > 0)
        - 0.7 * columns["evolution_note"]
    )
    return np.asarray(log_odds, dtype=np.float64)


def _sigmoid(log_odds: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-log_odds)), dtype=np.float64)

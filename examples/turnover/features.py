"""The 30 features of the turnover model: an existing client's contract, so its names and types stay as they are.

That contract gives neither ranges nor closed categories, and this card invents none: what the client sends is taken.
"""

from examples.turnover.data import (
    CATEGORIES,
    DEPARTEMENTS,
    DEPLACEMENTS,
    DOMAINES,
    EVOLUTIONS,
    GENRES,
    POSTES,
    STATUTS,
)
from shared.cards.features import Feature, FeatureType


def _text(name: str, description: str, categories: list[str], example: str) -> Feature:
    return Feature(name=name, type="string", categories=categories, description=description, example=example)


def _number(name: str, description: str, example: float, *, type: FeatureType = "integer") -> Feature:  # noqa: A002
    return Feature(name=name, type=type, description=description, example=example)


FEATURES = [
    _text("genre", "Genre", GENRES, "F"),
    _text("statut_marital", "Statut marital", STATUTS, "Célibataire"),
    _text("departement", "Département de l'entreprise", DEPARTEMENTS, "Consulting"),
    _text("poste", "Intitulé du poste", POSTES, "Consultant"),
    _text("domaine_etude", "Domaine des études", DOMAINES, "Infra & Cloud"),
    _text("frequence_deplacement", "Fréquence des déplacements professionnels", DEPLACEMENTS, "Occasionnel"),
    Feature(name="heure_supplementaires", type="boolean", description="Fait des heures supplémentaires", example=True),
    _text("evolution_cat_evol", "Évolution de la note d'évaluation", EVOLUTIONS, "Stable"),
    _text("categorie_employe", "Catégorie d'employé, selon l'âge et l'ancienneté", CATEGORIES, "Junior"),
    _number("satisfaction_employee_nature_travail", "Satisfaction quant à la nature du travail, de 1 à 4", 2),
    _number("nombre_participation_pee", "Participations au plan d'épargne d'entreprise", 0),
    _number("ecart_note_evaluation", "Note d'évaluation actuelle moins la précédente", 0),
    _number("revenu_mensuel", "Revenu mensuel brut, en euros", 2600),
    _number("distance_domicile_travail", "Distance du domicile au travail, en kilomètres", 18),
    _number("satisfaction_globale", "Moyenne des quatre satisfactions, de 1 à 4", 2.25, type="number"),
    _number("niveau_education", "Niveau d'études, de 1 à 5", 3),
    _number("note_evaluation_actuelle", "Note de la dernière évaluation, de 1 à 4", 3),
    _number("satisfaction_employee_equipe", "Satisfaction quant à l'équipe, de 1 à 4", 3),
    _number("age", "Âge, en années", 29),
    _number("revenu_par_annee_experience_interne", "Revenu mensuel par année dans l'entreprise, en euros", 650),
    _number("satisfaction_employee_equilibre_pro_perso", "Satisfaction quant à l'équilibre de vie, de 1 à 4", 2),
    _number("nombre_experiences_precedentes", "Employeurs précédents", 2),
    _number("annees_dans_l_entreprise", "Années d'ancienneté dans l'entreprise", 3),
    _number("nb_formations_suivies", "Formations suivies dans l'année", 2),
    _number("revenu_par_annee_experience_totale", "Revenu mensuel par année d'expérience, en euros", 371),
    _number("ratio_sans_promotion", "Part de l'ancienneté sans promotion, en pour cent", 67),
    _number("satisfaction_employee_environnement", "Satisfaction quant à l'environnement de travail, de 1 à 4", 2),
    _number("exp_hors_entreprise", "Années d'expérience hors de l'entreprise", 3),
    _number("mobilite_promotion", "Années passées dans l'entreprise jusqu'à la dernière promotion", 1),
    _number("annees_depuis_la_derniere_promotion", "Années depuis la dernière promotion, ou l'embauche", 2),
]

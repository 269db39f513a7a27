"""The request body as one writes it by hand: a field for each feature."""

from pydantic import BaseModel, Field


class Features(BaseModel):
    """The 43 features of the attrition model."""

    age: int = Field(ge=16, le=70)
    age_debut_carriere: int
    annee_experience_totale: int = Field(ge=0)
    annees_dans_l_entreprise: int = Field(ge=0)
    annees_dans_le_poste_actuel: int = Field(ge=0)
    annees_depuis_la_derniere_promotion: int = Field(ge=0)
    annee_derniere_promotion: int
    annes_sous_responsable_actuel: int = Field(ge=0)
    genre: int = Field(ge=0, le=2)
    statut_marital: str = Field(max_length=50)
    niveau_education: int = Field(ge=0, le=10)
    domaine_etude: str = Field(min_length=1, max_length=100)
    departement: str = Field(max_length=100)
    poste: str = Field(max_length=100)
    niveau_hierarchique_poste: int = Field(ge=0, le=20)
    frequence_deplacement: int = Field(ge=0, le=2)
    revenu_mensuel: float = Field(gt=0)
    augementation_salaire_precedente: float = Field(ge=0)
    salaire_par_annee_exp: float = Field(gt=0)
    heure_supplementaires: int = Field(ge=0, le=1)
    distance_domicile_travail: float = Field(ge=0)
    distance_x_deplacement: float = Field(ge=0)
    impact_trajet_sur_satisfaction: float = Field(ge=0, le=5)
    note_evaluation_actuelle: float = Field(ge=1, le=5)
    note_evaluation_precedente: float = Field(ge=1, le=5)
    evolution_note: float = Field(ge=-4, le=4)
    satisfaction_employee_nature_travail: float = Field(ge=0, le=5)
    satisfaction_employee_environnement: float = Field(ge=0, le=5)
    satisfaction_employee_equilibre_pro_perso: float = Field(ge=0, le=5)
    satisfaction_employee_equipe: float = Field(ge=0, le=5)
    satisfaction_moyenne: float = Field(ge=0, le=5)
    score_satisfaction_global: float = Field(ge=0, le=5)
    delta_satisfaction_equipe: float = Field(ge=-5, le=5)
    stagnation_poste: int = Field(ge=0, le=1)
    stagnation_profonde: int = Field(ge=0, le=1)
    taux_volatilite: float = Field(ge=0, le=1)
    ratio_fidelite_entreprise: float = Field(ge=0, le=1)
    ratio_poste_vs_anciennete: float = Field(ge=0, le=1)
    anciennete_x_satisfaction: float = Field(ge=0)
    nombre_experiences_precedentes: int = Field(ge=0)
    nb_formations_suivies: int = Field(ge=0)
    formations_par_annee: float = Field(ge=0)
    nombre_participation_pee: int = Field(ge=0)


class Submission(BaseModel):
    """One row for a model."""

    model: str
    features: Features

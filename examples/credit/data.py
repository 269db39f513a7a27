"""Synthetic loan applications: no row describes a real person, every number is drawn by the generator below.

A latent quality of the applicant moves scores, delays and debts together, as it does in a bank's books, and
each feature is missing for a reason that a bank knows: no bureau file, no earlier loan, no card, or a blank.
"""

from typing import Any

import numpy as np
import pandas as pd

TARGET = "defaulted"

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


def generate(rows: int = 20_000, *, seed: int = 20_240_602) -> pd.DataFrame:
    """Return `rows` synthetic applications: 30 features (NaN: not known) and the 0/1 column `defaulted`.

    About 9 % default. The log-odds are linear in the features before some are forgotten, plus noise.
    """
    rng = np.random.default_rng(seed)
    quality = rng.normal(0, 1, rows)
    columns: dict[str, Any] = {}
    columns |= _application(rng, quality)
    columns |= _person(rng, quality)
    columns |= _bureau(rng, quality)
    columns |= _history(rng, quality)
    risk = _log_odds(columns) + rng.normal(0, 0.3, rows)
    columns[TARGET] = (rng.random(rows) < 1 / (1 + np.exp(-risk))).astype(np.int64)
    _forget(rng, columns)
    return pd.DataFrame(columns)


def _application(rng: np.random.Generator, quality: Floats) -> dict[str, Any]:
    n = len(quality)
    income = np.round(26_000 * rng.lognormal(0.12 * quality, 0.42), -2)
    months = rng.choice([12, 24, 36, 48, 60, 72, 84], n, p=[0.08, 0.14, 0.24, 0.2, 0.2, 0.08, 0.06])
    # No bank lends what would cost more than 55 % of the income to pay back.
    amount = np.minimum(income * rng.lognormal(-0.35, 0.6, n), 0.55 * income * months / 12)
    amount = np.round(np.clip(amount, 1_000, 400_000), -2)
    rate = np.clip(rng.normal(0.072, 0.018, n) - 0.006 * quality, 0.015, 0.19)
    instalment = np.round(amount * (1 / months + rate / 12), 2)
    down = np.round(amount * np.clip(rng.beta(1.1, 7, n) + 0.02 * quality, 0, 0.8), 2)
    return {
        "loan_amount": amount,
        "loan_term_months": months.astype(np.float64),
        "nominal_rate": np.round(rate, 4),
        "monthly_instalment": instalment,
        "down_payment": down,
        "declared_income": income,
        "instalment_to_income": np.round(12 * instalment / income, 4),
        "loan_to_income": np.round(amount / income, 4),
    }


def _person(rng: np.random.Generator, quality: Floats) -> dict[str, Any]:
    n = len(quality)
    age = np.round(np.clip(rng.normal(42, 12, n) + 1.5 * quality, 18, 85))
    employed = np.clip(rng.gamma(1.4, 4.5, n) + 0.8 * quality, 0, None)
    return {
        "age_years": age,
        "years_employed": np.round(np.minimum(employed, age - 16), 1),
        "years_at_address": np.round(np.minimum(rng.gamma(1.5, 5.0, n), age), 1),
        "household_size": (1 + rng.poisson(1.3, n)).astype(np.float64),
        "dependants": rng.poisson(0.6, n).astype(np.float64),
        "car_age_years": np.round(np.clip(rng.gamma(2.2, 3.8, n) - 0.8 * quality, 0, 40), 0),
        "region_default_rate": np.round(np.clip(rng.normal(0.08, 0.02, n) - 0.004 * quality, 0.01, 0.2), 4),
    }


def _bureau(rng: np.random.Generator, quality: Floats) -> dict[str, Any]:
    n = len(quality)

    def score(weight: float) -> Floats:
        latent = weight * quality + np.sqrt(1 - weight**2) * rng.normal(0, 1, n)
        return np.asarray(np.round(1 / (1 + np.exp(-0.9 * latent)), 4), dtype=np.float64)

    limit = np.round(np.clip(3_000 * rng.lognormal(0.2 * quality, 0.7), 200, None), -2)
    use = np.clip(rng.beta(1.6, 2.2, n) - 0.07 * quality, 0, 1.5)
    return {
        "bureau_score_a": score(0.72),
        "bureau_score_b": score(0.62),
        "bureau_score_c": score(0.5),
        "open_loans": rng.poisson(np.exp(0.45 - 0.05 * quality)).astype(np.float64),
        "closed_loans": rng.poisson(2.4, n).astype(np.float64),
        "bureau_debt": np.round(9_000 * rng.lognormal(-0.2 * quality, 0.9), 0),
        "inquiries_last_month": rng.poisson(np.exp(-1.1 - 0.3 * quality)).astype(np.float64),
        "inquiries_last_year": rng.poisson(np.exp(0.6 - 0.2 * quality)).astype(np.float64),
        "card_limit": limit,
        "card_utilisation": np.round(use, 4),
    }


def _history(rng: np.random.Generator, quality: Floats) -> dict[str, Any]:
    n = len(quality)
    applications = 1 + rng.poisson(2.2, n)
    refused = rng.binomial(applications, 1 / (1 + np.exp(1.6 + 0.6 * quality)))
    late = rng.poisson(np.exp(-0.5 - 0.6 * quality))
    return {
        "earlier_applications": applications.astype(np.float64),
        "refused_share": np.round(refused / applications, 4),
        "months_since_last_loan": np.round(rng.gamma(1.6, 11, n), 0),
        "late_payments_24m": late.astype(np.float64),
        "mean_days_late": np.round(late * rng.gamma(1.6, 2.4, n), 1),
    }


def _log_odds(columns: dict[str, Any]) -> Floats:
    """Return the log-odds of default before anything is forgotten."""
    log_odds = (
        -2.3
        - 1.9 * columns["bureau_score_a"]
        - 1.7 * columns["bureau_score_b"]
        - 1.3 * columns["bureau_score_c"]
        + 1.1 * columns["instalment_to_income"]
        + 0.9 * columns["card_utilisation"]
        + 1.3 * columns["refused_share"]
        + 0.16 * columns["late_payments_24m"]
        + 0.02 * columns["mean_days_late"]
        + 0.14 * columns["inquiries_last_month"]
        + 9.0 * columns["region_default_rate"]
        - 0.014 * (columns["age_years"] - 42)
        - 0.045 * columns["years_employed"]
        + 0.012 * columns["car_age_years"]
        + 9.0 * (columns["nominal_rate"] - 0.072)
        + 0.07 * columns["open_loans"]
        - 0.006 * columns["months_since_last_loan"]
    )
    return np.asarray(log_odds, dtype=np.float64)


def _forget(rng: np.random.Generator, columns: dict[str, Any]) -> None:
    """Set to NaN, in place, what a bank would not know."""
    n = len(columns["loan_amount"])
    no_file, first_loan, no_card, no_car = (rng.random(n) < share for share in (0.11, 0.07, 0.28, 0.36))
    blanks = {
        "open_loans": no_file,
        "closed_loans": no_file,
        "bureau_debt": no_file,
        "inquiries_last_month": no_file,
        "inquiries_last_year": no_file,
        "bureau_score_a": no_file | (rng.random(n) < 0.08),
        "bureau_score_b": rng.random(n) < 0.04,
        "bureau_score_c": rng.random(n) < 0.2,
        "card_limit": no_card,
        "card_utilisation": no_card,
        "car_age_years": no_car,
        "refused_share": first_loan,
        "months_since_last_loan": first_loan,
        "late_payments_24m": first_loan,
        "mean_days_late": first_loan,
        "years_employed": rng.random(n) < 0.05,
        "years_at_address": rng.random(n) < 0.03,
        "down_payment": rng.random(n) < 0.02,
    }
    for name, missing in blanks.items():
        columns[name] = np.where(missing, np.nan, columns[name])

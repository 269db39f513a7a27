"""The 30 features of the credit model; each may be null, which the pipeline's imputer fills."""

from shared.cards.features import Feature


def _number(
    name: str, description: str, example: float | None, *, low: float | None = 0, high: float | None = None
) -> Feature:
    return Feature(name=name, type="number", nullable=True, min=low, max=high, description=description, example=example)


FEATURES = [
    _number("loan_amount", "Amount applied for, in euros", 12000.0),
    _number("loan_term_months", "Months over which it is paid back", 48.0),
    _number("nominal_rate", "Nominal yearly rate offered, 0.07 for 7 %", 0.0715, high=1),
    _number("monthly_instalment", "Monthly instalment, in euros", 321.5),
    _number("down_payment", "Own money put in, in euros", 1500.0),
    _number("declared_income", "Declared yearly income, in euros", 27500.0),
    _number("instalment_to_income", "Yearly instalments over yearly income", 0.1403),
    _number("loan_to_income", "Loan amount over yearly income", 0.4364),
    _number("age_years", "Age of the applicant, in years", 38.0, low=18, high=120),
    _number("years_employed", "Years with the present employer", 5.5),
    _number("years_at_address", "Years at the present address", 4.2),
    _number("household_size", "Persons in the household", 3.0),
    _number("dependants", "Persons who depend on the applicant", 1.0),
    _number("car_age_years", "Age of the own car, in years; null without a car", 7.0),
    _number("region_default_rate", "Share of loans in default in the applicant's region", 0.0812, high=1),
    _number("bureau_score_a", "First credit bureau's score, 0 (worst) to 1", 0.5412, high=1),
    _number("bureau_score_b", "Second credit bureau's score, 0 (worst) to 1", 0.4987, high=1),
    _number("bureau_score_c", "Third credit bureau's score, 0 (worst) to 1; often not known", None, high=1),
    _number("open_loans", "Loans that run elsewhere", 1.0),
    _number("closed_loans", "Loans paid back elsewhere", 2.0),
    _number("bureau_debt", "Debt elsewhere, in euros", 6400.0),
    _number("inquiries_last_month", "Banks that asked the bureau in the last month", 0.0),
    _number("inquiries_last_year", "Banks that asked the bureau in the last year", 2.0),
    _number("card_limit", "Credit card limit, in euros; null without a card", 2500.0),
    _number("card_utilisation", "Mean balance over limit in six months; above 1 when overdrawn", 0.41),
    _number("earlier_applications", "Earlier applications with this bank", 3.0),
    _number("refused_share", "Share of those that were refused", 0.3333, high=1),
    _number("months_since_last_loan", "Months since the last loan was granted", 14.0),
    _number("late_payments_24m", "Payments late in the last 24 months", 1.0),
    _number("mean_days_late", "Mean delay of late payments, in days", 3.5),
]

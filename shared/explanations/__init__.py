"""Why a row has its score: Shapley values of the model's own features, exact or with a standard error.

Imports csv, scoring, encoding, cards and tables. Its pure part takes a loaded model and canonical rows; `storage`
alone reads and writes rows. Jobs and HTTP call it; it knows neither.
"""

"""Customers of a phone company: a table to learn with (docs/tutorials/churn.ipynb); no model is registered from it."""

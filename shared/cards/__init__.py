"""A model's card, the check of a row against it, and the values that texts in rows and cells stand for.

Imports errors and the wording of validation errors; never numpy, tables or estimators. Requests, files and reference
rows are checked here.
"""

"""What a model says about itself in its card, whether a row fits it, and what a text in a row or cell stands for.

Imports errors and the wording of validation errors; never numpy, tables or estimators. Requests, files and reference
rows are checked here.
"""

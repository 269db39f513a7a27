"""Sources of models to add: each kind of file or folder that people bring becomes one candidate.

Imports the packages, artefacts and MLflow folders beside it. The registry checks and stores the candidate.
"""

"""Folders saved by MLflow: their signature, and their conversion into packages.

Imports the room around it. Needs no MLflow.
"""

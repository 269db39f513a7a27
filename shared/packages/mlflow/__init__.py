"""Folders that MLflow saved: their signature, and the package that becomes of them.

Imports the room around it. Needs no MLflow.
"""

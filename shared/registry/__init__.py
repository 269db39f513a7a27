"""Versions and aliases of models: adding, loading, verifying, and watching for new ones.

Imports packages, scoring and tables. Knows no jobs; `python -m shared.registry` is its command line.
"""

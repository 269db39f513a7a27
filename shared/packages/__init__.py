"""A model on disk or in a store: reading an artefact, inferring a card, writing a package, fetching it.

Imports csv (for sample rows), encoding, cards and the table of model versions. Scores nothing.
"""

"""The reference data of a model: rows like those that it was trained on, with the answers that were true.

Imports the registry and the rooms below it. Changes no job.
"""

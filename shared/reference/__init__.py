"""The reference data of a model: rows like its training rows, with their ground truth.

Imports the registry and the rooms below it. Changes no job.
"""

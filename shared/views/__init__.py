"""SQL views of a model, for clients that read tables of their own layout.

Imports the registry and the rooms below it. Changes no job.
"""

"""The API's snapshot of models, aliases, keys and workers, and the JSON bodies of models.

Imports shared and http only. Every request looks here instead of into the database.
"""

"""The API's picture of models, aliases, keys and workers, refreshed every few seconds.

Imports shared only. Every request looks here instead of into the database.
"""

"""The API's picture of models, aliases, keys and workers, refreshed every few seconds, and how models look to callers.

Imports shared and http only. Every request looks here instead of into the database.
"""

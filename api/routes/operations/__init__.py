"""The routes for operators: health, metrics, logs and API keys.

Imports the rooms of the API, and no other route.
"""

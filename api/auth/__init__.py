"""Authentication and limits: API keys, scopes, rate limits.

Imports the picture of keys. Decides nothing about single jobs.
"""

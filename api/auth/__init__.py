"""Authentication and limits: API keys, scopes, rate limits.

Imports the snapshot of keys. Decides nothing about single jobs.
"""

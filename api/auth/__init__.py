"""Authentication and limits: API keys, scopes, rate limits.

Imports the snapshot of keys, and changes the keys themselves. Decides nothing about single jobs.
"""

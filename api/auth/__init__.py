"""Who calls, and how much they may ask for: keys, scopes, rate limits.

Imports the picture of keys. Decides nothing about single jobs.
"""

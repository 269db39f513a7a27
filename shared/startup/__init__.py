"""Checks before a process serves: each failure ends it with one sentence and a non-zero exit code.

Imports settings, database, broker and tables. The API, the workers and the Space call it when they start.
"""

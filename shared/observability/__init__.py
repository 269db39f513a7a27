"""Log lines, metrics, traces and the audit log, and the last run of each recurring task.

Imports settings and tables. Never writes an input or a key.
"""

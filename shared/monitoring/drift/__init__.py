"""Drift of features and scores: profiles of the reference, counters of scored rows, their comparison, and alerts.

Imports cards, tables, the audit log and the suspensions beside it. Counting and erasing rows are in the room around it.
"""

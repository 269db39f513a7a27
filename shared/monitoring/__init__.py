"""Monitoring of scored models: outcomes and quality, counters of drift, alerts.

Pure statistics and the rows of their own tables; imports cards, csv, database and tables, never jobs. The API reads it,
the workers' clock and a thread of the sync runtime fill it.
"""

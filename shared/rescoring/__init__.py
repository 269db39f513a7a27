"""Stored rows scored once more: to reproduce a past decision, check the fast scorers, or let a challenger score.

Also to rehearse an upgrade. Imports jobs, the registry and the rooms below them. Changes no job: it reads, scores,
compares, and stores a challenger's scores.
"""

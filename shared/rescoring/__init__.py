"""Stored rows scored once more: to reproduce a past decision, to check the fast scorers, to rehearse an upgrade.

Imports jobs, the registry and the rooms below them. Changes no job: it reads, scores and compares, bit for bit.
"""

"""Foreign protocols over the same queue: their bodies become rows, and our outputs become their answers.

Imports jobs, services and the rooms below. Its routes are in api/routes.
"""

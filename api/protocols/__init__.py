"""Foreign protocols over the same queue: their bodies to rows, and our outputs to their answers.

Imports jobs, services and the rooms below. Its routes are in api/routes.
"""

"""HTTP itself: conditional requests, preferences, limits of connections, security headers.

Imports shared only. Knows no jobs, and of models the names of their fields.
"""

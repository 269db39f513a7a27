"""What HTTP itself says: conditional requests, preferences, limits of connections, safe headers.

Imports shared only. Knows no jobs, and of models the names of their fields.
"""

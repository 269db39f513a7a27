"""What workers do by the clock: recovering jobs of the dead, expiring late ones, forgetting old keys.

Imports shared and the worker's runtime. One worker does each at a time.
"""

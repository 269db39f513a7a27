"""The recurring tasks of workers: recovering jobs of dead workers, expiring late ones, forgetting old keys.

Imports shared and the worker's runtime. One worker does each at a time.
"""

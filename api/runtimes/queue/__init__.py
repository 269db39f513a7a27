"""The queue runtime: it commits submissions, wakes workers, and follows the queues and the ends of jobs.

Imports the protocol and the group commit beside it. Loads no model.
"""

"""From a request and its body to a submission and its answer, for rows.

Imports services and the rooms below. Has no SQL of its own.
"""

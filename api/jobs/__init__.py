"""From a request and its body to a submission and its answer, for rows; and following a job until its end.

Imports services and the rooms below. Has no SQL of its own.
"""

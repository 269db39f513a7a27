"""The writer of error_logs: refusals and failures, in groups and beside the request.

Imports shared only. Never delays an answer.
"""

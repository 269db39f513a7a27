"""The writers of error_logs and request_logs: in groups and beside the requests.

Imports shared only. Never delays an answer.
"""

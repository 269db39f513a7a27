"""The terminal of the command: output, progress, exit codes, and following a job until it ends.

Imports the client. Knows none of the commands.
"""

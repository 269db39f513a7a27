"""What must be there before a process serves: one sentence and a non-zero exit code where it is not.

Imports settings, database, broker and tables. The API, the workers and the Space call it when they start.
"""

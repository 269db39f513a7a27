"""The life of a chunk of a job, from its claim to its stored rows; and the rows of other jobs that a chunk is about.

Imports the life of jobs beside it, csv, scoring and tables. Nothing else changes a chunk.
"""

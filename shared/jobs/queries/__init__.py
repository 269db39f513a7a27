"""Reading jobs: one or several, their files, their lists, their events, and the lineage of a row.

Imports the chunks and the life of jobs beside it. Changes nothing.
"""

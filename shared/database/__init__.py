"""The database: engines, deadlines, prepared statements, revisions, and its errors as sentences.

Imports the settings and no table. Whoever runs a statement gets the connection from this room.
"""

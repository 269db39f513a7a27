"""The database as such: engines, deadlines, prepared statements, revisions, and what it says when it refuses.

Imports the settings and no table. Whoever runs a statement gets the connection from this room.
"""

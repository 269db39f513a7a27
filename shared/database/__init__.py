"""The database: engines, deadlines, prepared statements, revisions, and its errors as sentences.

Imports the settings and no table. Every statement runs on a connection from this room.
"""

"""The routes of jobs: submitting rows and files, explaining them, following, reading and changing them.

Imports the rooms of the API, and no other route.
"""

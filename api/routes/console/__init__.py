"""The routes of the console's pages. They are for people, and no part of the documented API.

Imports the console's room, and no other route.
"""

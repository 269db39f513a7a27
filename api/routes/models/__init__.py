"""The routes of models: reading, adding, training, comparing and promoting them.

Imports the rooms of the API, and no other route.
"""

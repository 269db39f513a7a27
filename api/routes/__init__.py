"""The routes, in rooms by the nouns of the API, which api/main.py lists: they check, call and return.

They may import every other room of the API, and no other route. The rooms below do the work.
"""

"""The checks of `python -m api.check`, one file for each part of the surroundings.

Imports shared only. Reports findings with advice, and changes nothing.
"""

"""What `python -m api.check` looks at, one file for each part of the surroundings.

Imports shared only. Reports findings with what to do about them, and changes nothing.
"""

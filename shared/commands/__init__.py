"""The command lines behind `python -m shared.registry`: arguments in, sentences out.

Imports everything in shared. Holds no logic of its own, and nothing imports it but the entries.
"""

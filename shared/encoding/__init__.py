"""The preprocessing of a fitted scikit-learn pipeline as arithmetic on arrays, without building a DataFrame.

Imports cards. Knows no SQL and no files; the room above chooses whether its result is fast and exact enough.
"""

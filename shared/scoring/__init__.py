"""The fastest exact way to score a model: scorers, the proof that they agree with the estimator, and the choice.

Imports encoding and cards. Knows no SQL and no HTTP; both runtimes ask a model through this room only.
"""

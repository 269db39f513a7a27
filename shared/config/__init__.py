"""The settings of the service: each with its meaning, its limits, and what is wrong with a value that is refused.

Imports no other room. Every process reads its settings here, once.
"""

"""The settings of the service: each with its meaning, its limits, and the error for an invalid value.

Imports no other room. Every process reads its settings here, once.
"""

"""The sync runtime: this service scores each submission at once; threads do what workers do in the queue runtime.

Imports the protocol and the group commit beside it. Models that are scored by a thread live in a process of their own.
"""

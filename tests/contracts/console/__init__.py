"""The contracts of console."""

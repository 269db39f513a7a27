"""The contracts of operations."""

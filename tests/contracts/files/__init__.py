"""The contracts of files."""

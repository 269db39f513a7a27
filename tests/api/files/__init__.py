"""The tests of api/files."""

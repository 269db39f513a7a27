"""The tests of api/models."""

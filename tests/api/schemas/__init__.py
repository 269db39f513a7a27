"""The tests of api/schemas."""

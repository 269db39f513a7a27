"""The tests of api/check."""

"""The tests of api/errors."""

"""The tests of api/auth."""

"""The tests of api."""

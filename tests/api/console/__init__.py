"""The tests of api/console."""

"""The tests of deploy."""

"""The tests of shared."""

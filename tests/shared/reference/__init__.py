"""The tests of shared/reference."""

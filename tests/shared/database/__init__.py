"""The tests of shared/database."""

"""The tests of shared/csv."""

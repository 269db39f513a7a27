"""The tests of shared/tables."""

"""The tests of shared/csv/uploads."""

"""The tests of shared/config."""

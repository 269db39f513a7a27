"""The tests of shared/commands."""

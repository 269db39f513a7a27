"""The tests of shared/startup."""

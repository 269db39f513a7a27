"""The tests of shared/registry."""

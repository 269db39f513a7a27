"""The tests of shared/packages/sources."""

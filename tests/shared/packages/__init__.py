"""The tests of shared/packages."""

"""The tests of shared/views."""

"""The tests of worker."""

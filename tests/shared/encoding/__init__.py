"""The tests of shared/encoding."""

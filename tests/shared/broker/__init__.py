"""The tests of shared/broker."""

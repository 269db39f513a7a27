"""The tests of shared/cards."""

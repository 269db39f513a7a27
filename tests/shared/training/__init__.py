"""The tests of shared/training."""

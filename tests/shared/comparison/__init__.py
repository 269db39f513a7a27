"""The tests of shared/comparison."""

"""The tests of shared/scoring."""

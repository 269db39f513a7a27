"""The tests of shared/monitoring."""

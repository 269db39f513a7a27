"""The tests of shared/jobs."""

"""The tests of shared/jobs/chunks."""

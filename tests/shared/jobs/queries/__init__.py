"""The tests of shared/jobs/queries."""

"""The tests of api/jobs."""

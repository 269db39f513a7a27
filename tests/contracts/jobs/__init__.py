"""The contracts of jobs."""

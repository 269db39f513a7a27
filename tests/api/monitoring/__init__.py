"""The tests of api/monitoring."""

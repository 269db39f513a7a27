"""The tests of api/logs."""

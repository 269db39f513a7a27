"""The tests of api/runtimes/sync."""

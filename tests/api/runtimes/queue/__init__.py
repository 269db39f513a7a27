"""The tests of api/runtimes/queue."""

"""The tests of api/runtimes."""

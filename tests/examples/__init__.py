"""The tests of examples."""

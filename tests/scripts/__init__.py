"""The tests of scripts."""

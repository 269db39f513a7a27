"""The tests of scripts/local."""

"""The tests of scripts/generate."""

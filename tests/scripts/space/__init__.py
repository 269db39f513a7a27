"""The tests of scripts/space."""

"""The tests of scripts/servers."""

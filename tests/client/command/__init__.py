"""The tests of client/command."""

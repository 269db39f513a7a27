"""The tests of client/transport."""

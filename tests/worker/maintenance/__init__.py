"""The tests of worker/maintenance."""

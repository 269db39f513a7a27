"""The tests of api/files/uploads."""

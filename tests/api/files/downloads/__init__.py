"""The tests of api/files/downloads."""

"""The tests of api/protocols."""

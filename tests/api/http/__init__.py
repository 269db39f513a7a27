"""The tests of api/http."""

"""The tests of api/protocols/open_inference."""

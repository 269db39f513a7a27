"""The routes, one file an area; api/main.py lists them."""

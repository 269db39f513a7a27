"""What `python -m api.check` looks at, one file for each part of the surroundings."""

"""`make e2e-compose`: the stack of docker-compose.yml, started, used, broken under load, and reported on.

Imports scripts/local for its HTTP probe. Never part of an image: it talks to the engine from outside.
"""

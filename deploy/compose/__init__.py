"""What the containers of docker-compose.yml run, besides the service: secrets, the database, reloading.

Imports create_db of scripts. Lies in the worker's image.
"""

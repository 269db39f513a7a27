"""The stack of docker-compose.yml: its secrets, and the driver that tries it out."""

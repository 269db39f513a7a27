"""Pages of the reference that are long: the routes with their examples, the client with its commands; and pictures.

Each module writes one of them for a make target, from the code or from a running service. Imports the document of the
API and the parser of the client, and nothing that serves.
"""

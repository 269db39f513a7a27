"""Pages of the reference that are long: the routes with their examples; and pictures.

Each module writes one of them for a make target, from the code or from a running service. Imports the document of the
API, and nothing that serves. The page of the client is written in client/: the service does not know its client.
"""

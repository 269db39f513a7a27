"""`make run`: the servers, the migrations, the example models, the API, the workers and Flower on this machine.

Imports scripts/servers, and how a log line is shown. Starts the parts as processes and imports none of them.
"""

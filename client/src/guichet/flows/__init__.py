"""Every call of the API as a flow: its requests, its retries and the reading of its answers, without any I/O.

Imports the transport and the records. Both clients, `client.py` and `aio.py`, run the flows.
"""

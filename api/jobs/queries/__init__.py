"""A caller's jobs, read: polling one, lists of them, their events as a stream, and the lineage of a row.

Imports services, and the requests and serializers beside it. Changes nothing.
"""

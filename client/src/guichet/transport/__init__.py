"""Requests and answers of HTTP: bodies, retries, uploads, and streams that resume.

Imports records and errors. Has no connection of its own: the clients bring it.
"""

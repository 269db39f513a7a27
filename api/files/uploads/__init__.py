"""The bytes of an upload: its body, forms and compression unwrapped, and chunks spooled until the file is complete.

Imports errors, and the readers of CSV that cut an upload into chunks. Commits nothing.
"""

"""The console: pages for people, written on the server from the answers of the JSON routes, and what a browser loads.

Imports errors, auth and the rooms below. Has no SQL, and decides nothing about access: it asks the routes inside this
process with the key of its reader.
"""

"""Redis and Celery: the one app, the names of lanes, tasks and keys, and the wake-up messages.

Imports the settings and no table. The state of a job is never here: the database holds it.
"""

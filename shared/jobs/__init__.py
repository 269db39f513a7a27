"""Every change of a job and of the chunks of a file, each as one conditional statement; and reading them.

Imports csv, scoring and tables. Knows neither HTTP nor Celery; no other room writes the state of a job.
"""

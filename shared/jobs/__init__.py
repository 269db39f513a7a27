"""Every change of a job and of its chunks, each as one conditional statement; and reading them.

Imports csv, scoring and tables. Knows neither HTTP nor Celery; no other room writes the state of a job.
"""

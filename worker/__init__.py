"""The Celery side: tasks that claim, score and store, and the timed ones that recover."""

"""The design that everyone writes first: ORM insert and commit for each request, one Celery task for each row.

Nothing in it is made slow on purpose: the connection pool fits the threads, the model is loaded once in each process,
task results are ignored, uvicorn runs on uvloop and httptools, and scikit-learn uses one OpenMP thread.
"""

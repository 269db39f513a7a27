"""A new model from a table of rows: column types, candidates, a search with a fixed seed, and the report on the best.

Pure: rows and options go in, a package and a report come out; the same file, seed and libraries give the same model.
Imports packages, monitoring (metrics with intervals), encoding, cards and csv; knows no job, no SQL and no HTTP. The
child process of a training job calls it, and the API calls its checks before it stores a job.
"""

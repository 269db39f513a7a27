"""Uploads and downloads of files: unwrapping, spooling, options, reports, ranges, Parquet.

Imports jobs, services and the rooms below. shared/csv decides the meaning of a CSV file.
"""

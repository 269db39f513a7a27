"""Uploads and downloads of files: unwrapping, spooling, options, reports, ranges, Parquet.

Imports jobs, services and the rooms below. What a CSV means is decided in shared/csv.
"""

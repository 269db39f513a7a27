"""The files of a job for download: which there are, their pieces, and sending them as CSV or Parquet.

Imports http, errors and what jobs stored. Changes nothing.
"""

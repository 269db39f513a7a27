"""CSV bytes to rows and scores, and back: pure, streaming, bounded in memory.

Imports scoring, encoding and cards. Knows no SQL: uploads, chunks and reference data are read by its functions.
"""

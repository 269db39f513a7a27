"""Two versions on the same rows: pairs of scores, their counts chunk by chunk, and the report.

Pure statistics and the rows of their own table; imports scoring, monitoring, cards, csv, database and tables, never
jobs. Replays and the challenger write pairs here; the API and the gate of promotions read the report.
"""

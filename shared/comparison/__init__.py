"""Two versions on the same rows: pairs of scores, their counts chunk by chunk, and the report.

Pure statistics and the rows of their own tables; imports scoring, monitoring, cards, csv, database and tables, never
jobs. Replays write pairs here, and challengers scores; the API and the gate of promotions read the report.
"""

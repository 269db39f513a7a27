"""The computation for each kind of job, one file a kind, and their table: the same code in both runtimes.

Imports jobs and the rooms of its subjects (scoring, explanations). Rows go in, results come out; the room jobs claims
and ends the jobs. A library that only one kind needs is imported inside its function.
"""

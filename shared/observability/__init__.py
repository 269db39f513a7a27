"""What operators see: log lines, and when the recurring tasks were done last.

Imports settings and tables. Never writes an input or a key.
"""

"""An upload as it arrives: bytes or a workbook to text, its header checked, and its records cut into chunks.

Imports the format beside it. Knows neither HTTP nor jobs.
"""

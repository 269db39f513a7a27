"""The two ways to get a job done: committed and queued for workers, or scored in this service at once.

Imports shared and the shared rate limits. Knows neither requests nor answers.
"""

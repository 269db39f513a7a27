"""The two ways to get a job done, behind one protocol: queued for workers, or scored in this service at once.

Wakes requests that wait for a job or follow it. Imports shared, the catalog and the shared rate limits. Knows neither
requests nor answers.
"""

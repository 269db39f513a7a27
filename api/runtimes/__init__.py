"""The two ways to get a job done, behind one protocol: queued for workers, or scored in this service at once.

Who waits for a job or follows it hears of its end here. Imports shared, the catalog and the shared rate limits. Knows
neither requests nor answers.
"""

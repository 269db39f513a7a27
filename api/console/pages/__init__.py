"""The pages of the console, one file a subject: each asks the routes for its figures and fills a template.

Imports the requests, forms, charts and templates beside it. Pages import other pages for the parts that they share.
"""

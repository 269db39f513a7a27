"""Bodies of the routes that change, train and compare models, for OpenAPI.

Imports the bodies beside it, the registry's aliases and the options of trainings. Checks no file and no row.
"""

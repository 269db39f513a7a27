"""The commands of the Makefile, one room for each subject, and two commands for operators.

`create_db` and `query_predictions` stay at this address: they are in people's fingers, and in the worker's image.
"""

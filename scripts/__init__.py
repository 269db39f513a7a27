"""What the Makefile runs, one room for each of its subjects, and the two commands of operators.

`create_db` and `query_predictions` stay at this address: they are in people's fingers, and in the worker's image.
"""

"""The file of a fitted estimator: its content, its libraries, and what another scikit-learn has written.

Imports errors and the walker over pipelines. Knows neither cards nor folders of packages.
"""

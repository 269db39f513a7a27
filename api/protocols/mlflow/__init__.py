"""The bodies that MLflow's scoring server takes, as rows by feature name.

Imports the rooms below protocols. SageMaker's hosts speak it too.
"""

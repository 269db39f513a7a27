"""The bodies of MLflow's scoring server, as rows by feature name.

Imports the rooms below protocols. SageMaker's hosts speak it too.
"""

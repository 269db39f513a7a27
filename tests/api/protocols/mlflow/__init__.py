"""The tests of api/protocols/mlflow."""

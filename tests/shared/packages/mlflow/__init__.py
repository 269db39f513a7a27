"""The tests of shared/packages/mlflow."""

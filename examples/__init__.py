"""Example models to try the service with: synthetic data, a pipeline that fits in seconds, rows to send."""

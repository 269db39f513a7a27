"""The contracts of jobs/predict."""

"""Code for the API and the workers: settings, tables, the life of a job, models and scoring."""

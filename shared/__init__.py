"""What the API and the workers both need: settings, tables, the life of a job, models and scoring."""

"""The contracts of protocols."""

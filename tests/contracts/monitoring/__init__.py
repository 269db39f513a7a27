"""The contracts of monitoring."""

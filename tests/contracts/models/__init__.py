"""The contracts of models."""

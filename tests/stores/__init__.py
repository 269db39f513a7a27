"""Stores of models."""

"""The tests of shared/observability."""

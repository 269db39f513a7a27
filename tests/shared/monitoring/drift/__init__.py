"""The tests of shared/monitoring/drift."""

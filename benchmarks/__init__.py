"""Measurements: Guichet beside the naive design, in one run on one machine. They report and never assert."""

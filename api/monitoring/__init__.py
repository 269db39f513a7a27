"""Queries of monitoring systems and operators: numbers of the whole service, its logs, and windows of a model.

Imports services and below. Only reads.
"""

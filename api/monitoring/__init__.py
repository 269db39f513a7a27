"""What monitoring systems and operators ask: numbers of the whole service, its logs, and what windows of a model mean.

Imports services and below. Only reads.
"""

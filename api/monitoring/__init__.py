"""What monitoring systems and operators ask: numbers of the whole service, whichever process answers, and its logs.

Imports services and below. Reads, and writes nothing but the audit log's entry of what was read.
"""

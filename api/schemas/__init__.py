"""Bodies for the OpenAPI document. Rows themselves are checked by the cards' validators.

Imports shared only. Routes name these models; nothing is read by them.
"""

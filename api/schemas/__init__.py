"""Bodies as the OpenAPI document shows them. Rows themselves are checked by the cards' validators.

Imports shared only. Routes name these models; nothing is read by them.
"""

"""Bodies for the OpenAPI document. Rows themselves are checked by the cards' validators.

Imports shared only. Routes name these models for the document; most bodies are read by other code.
"""

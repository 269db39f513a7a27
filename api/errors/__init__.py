"""From an exception to its answer, in the form that the path or the model's card asks for.

Imports services and the rooms below. Routes raise; they build no error bodies.
"""

"""From an exception to its answer, in the form of the path's protocol or of the model's card.

Imports services and the rooms below. Routes raise; they build no error bodies.
"""

"""The Open Inference Protocol, version 2: tensors as JSON or bytes.

Imports the rooms below protocols. KServe's, Triton's and MLServer's clients speak it.
"""

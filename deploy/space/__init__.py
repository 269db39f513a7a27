"""What a Hugging Face Space needs on top of Dockerfile.api: its last stage, its page, and its start.

Imports nothing of the service: it starts it as a process.
"""

"""The Hugging Face Space: its folder made from Dockerfile.api, tried out in containers, and pushed.

Imports scripts/release for the checks of a deployed service. What runs inside the Space is in deploy/space.
"""

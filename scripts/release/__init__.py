"""A release: the notes of its tag, and the checks of a deployed service.

Needs no library that is not in requirements/ci.txt, for it runs in pipelines.
"""

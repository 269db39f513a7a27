"""What is in this folder needs Playwright, which `make e2e` installs: without it, nothing here is a test."""

from importlib.util import find_spec

if find_spec("playwright"):
    from tests.e2e.eyes import chromium, eyes  # noqa: F401 - fixtures
else:
    collect_ignore_glob = ["*.py"]

"""What is in this folder needs Playwright, which `make e2e` installs: without it, nothing here is a test."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("playwright") else ["eyes.py", "test_console.py"]

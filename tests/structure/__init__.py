"""The tests of the code itself: imports, locks, workflows, releases."""

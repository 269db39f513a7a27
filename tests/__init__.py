"""The tests."""

from shared.scoring.threads import prefer_one_thread

prefer_one_thread()  # before any test brings numpy: threads of many processes spin for one another

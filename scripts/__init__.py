"""What the Makefile runs: the servers of a developer's machine and the supervisor of `make run`."""

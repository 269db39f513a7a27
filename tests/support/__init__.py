"""The tests of what tests share: servers, stacks, stand-ins."""

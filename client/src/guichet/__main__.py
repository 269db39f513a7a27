"""`python -m guichet` is the command `guichet`."""

import sys

from guichet.command import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m shared.registry`: the models of the service, from a shell."""

import sys

from shared.commands.registry import main
from shared.stdout import run

if __name__ == "__main__":
    sys.exit(run(main))

"""The `guichet` command."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from guichet.client import Client
from guichet.command.bench import bench
from guichet.command.changes import history, move, promote, remove_alias, roll_back
from guichet.command.comparing import compare, replay
from guichet.command.explaining import explain_score
from guichet.command.files import score_csv
from guichet.command.lineage import show_lineage
from guichet.command.parser import make_parser
from guichet.command.registering import list_versions, register, show
from guichet.command.reproducing import reproduce
from guichet.command.rows import predict
from guichet.command.terminal.console import Console
from guichet.command.terminal.outcomes import INTERRUPTED, explain
from guichet.command.tickets import cancel, erase, list_jobs, list_models, retry, wait
from guichet.command.training import train
from guichet.errors import GuichetError

_COMMANDS: dict[str, Callable[[Client, argparse.Namespace, Console], int]] = {
    "predict": predict,
    "csv": score_csv,
    "explain": explain_score,
    "jobs": list_jobs,
    "wait": wait,
    "lineage": show_lineage,
    "reproduce": reproduce,
    "cancel": cancel,
    "retry": retry,
    "erase": erase,
    "models": list_models,
    "register": register,
    "list": list_versions,
    "show": show,
    "replay": replay,
    "train": train,
    "comparison": compare,
    "promote": promote,
    "rollback": roll_back,
    "unalias": remove_alias,
    "history": history,
    "archive": move,
    "restore": move,
    "delete": move,
    "bench": bench,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; every error becomes a sentence on stderr."""
    options = make_parser().parse_args(arguments)
    console = Console()
    try:
        with _client(options) as client:
            return _COMMANDS[options.command](client, options, console)
    except KeyboardInterrupt:
        console.tell("")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has had enough, as in `guichet jobs | head -3`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (GuichetError, OSError) as error:
        return explain(error, console)


def _client(options: argparse.Namespace) -> Client:
    return Client(
        getattr(options, "url", None),
        getattr(options, "api_key", None),
        timeout=getattr(options, "timeout", 60.0),
        retries=getattr(options, "retries", 5),
    )

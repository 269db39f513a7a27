"""What the commands share: which models they use, where they run, and where the result goes."""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

Result = dict[str, Any]


def run_command(
    parser: argparse.ArgumentParser,
    measure: Callable[[Path, argparse.Namespace], Result],
    render: Callable[[Result], str],
) -> None:
    """Read the command line, measure in a folder, write the result down, and print it as Markdown."""
    parser.add_argument("--models", type=Path, help="MODELS_DIR to use; otherwise the model is trained for this run")
    parser.add_argument("--out", type=Path, help="write the whole result as JSON")
    parser.add_argument("--keep", type=Path, help="run in this (new) folder and leave its logs")
    args = parser.parse_args()
    if args.models is not None:
        args.models = args.models.resolve()
    if args.keep is not None:
        args.keep.mkdir(parents=True)
        result = measure(args.keep.resolve(), args)
    else:
        with tempfile.TemporaryDirectory(prefix="guichet-bench-") as folder:
            result = measure(Path(folder), args)
    if args.out is not None:
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(render(result))

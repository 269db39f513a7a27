"""`python -m scripts.rehearse --python OTHER_VENV --model NAME`: would an upgrade of libraries change a past score?

Stored rows of a version are scored by two processes, one with the libraries that are installed here and one with those
of another environment, and compared bit for bit. Nothing is written. The other environment holds everything that the
service needs, in the versions that are to be tried:

    python -m venv /tmp/next && /tmp/next/bin/pip install -r requirements.txt 'scikit-learn==1.9.1'
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from scripts.checkout import ROOT
from shared.config.settings import get_settings
from shared.database.engine import get_engine, reader, session_scope
from shared.database.messages import explain_database_error
from shared.errors import GuichetError, NotFound
from shared.faults import counted
from shared.packages.fetching import ensure_local
from shared.registry.versions import find_reference
from shared.rescoring.rehearsal import Place, Rehearsed, read_history, score_in_this_process, write_task
from shared.stdout import run

SHOWN = 50  # rows that are printed
EQUAL, DIFFERENT, IMPOSSIBLE = 0, 1, 2  # exit codes


def main(arguments: Sequence[str] | None = None) -> int:
    """Rehearse; return 0 where every score keeps its bits, 1 where some do not, 2 where it cannot be told."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["--score"]:  # this is one of the two processes
        score_in_this_process(Path(arguments[1]), Path(arguments[2]))
        return EQUAL
    options = _parser().parse_args(arguments)
    try:
        return rehearse(options)
    except GuichetError as error:
        print(f"error: {error.detail}", file=sys.stderr)
    except SQLAlchemyError as error:
        print(f"error: {explain_database_error(error)}", file=sys.stderr)
    return IMPOSSIBLE


def rehearse(options: argparse.Namespace) -> int:
    """Score history under both environments, and print what differs; return the exit code."""
    python = _interpreter(options.python)
    settings = get_settings()
    with session_scope(read_only=True) as session:
        version = find_reference(session, options.model)
    ensure_local(version, settings.models, settings.models_uri)
    with reader(get_engine()).connect() as connection:
        places, rows = read_history(connection, version.id, limit=options.limit)
    label = f"{version.name}@{version.version}"
    if not rows:
        raise NotFound(f"{label} has scored no row that is stored: there is no history to rehearse.")
    with tempfile.TemporaryDirectory(prefix="guichet-rehearsal-") as folder:
        task = Path(folder)
        write_task(task, version, settings.models, rows)
        here = _score(Path(sys.executable), task, "here")
        there = _score(python, task, "there")
    differing = [
        (place, one, other) for place, one, other in zip(places, here.scores, there.scores, strict=True) if one != other
    ]
    if options.json:
        print(json.dumps(_as_json(label, here, there, len(rows), differing)))
    else:
        print("\n".join(_lines(label, here, there, len(rows), differing)))
    return DIFFERENT if differing else EQUAL


def _score(python: Path, task: Path, name: str) -> Rehearsed:
    """Have a process of an interpreter score the task; raise GuichetError with its last words where it cannot."""
    result = task / f"{name}.json"
    # Settings of the service, and what puts other libraries on the path, are none of its business.
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONHOME", "VIRTUAL_ENV")}
    process = subprocess.run(
        [str(python), "-m", "scripts.rehearse", "--score", str(task), str(result)],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode or not result.exists():
        words = "\n".join(process.stderr.strip().splitlines()[-5:])
        raise GuichetError(f"{python} cannot score this history (exit code {process.returncode}):\n{words}")
    return Rehearsed(**json.loads(result.read_text()))


Differing = Sequence[tuple[Place, Sequence[Any], Sequence[Any]]]


def _lines(label: str, here: Rehearsed, there: Rehearsed, count: int, differing: Differing) -> list[str]:
    changes = [
        f"{name} {here.libraries.get(name, 'absent')} -> {there.libraries.get(name, 'absent')}"
        for name in sorted(here.libraries.keys() | there.libraries.keys())
        if here.libraries.get(name) != there.libraries.get(name)
    ]
    lines = [f"{label}: {counted(count, 'stored row')} scored under {here.python} and {there.python}"]
    lines.append(f"libraries: {', '.join(changes) or 'the same'}")
    if here.scorer != there.scorer:
        lines.append(f"scorer: {here.scorer} here, {there.scorer} there: the faster one is not exact any more")
    lines += [f"job {place.job_id} row {place.row}: {one} -> {other}" for place, one, other in differing[:SHOWN]]
    if len(differing) > SHOWN:
        lines.append(f"... and {len(differing) - SHOWN} more")
    lines.append(
        f"{counted(len(differing), 'row')} of {count} would get another score"
        if differing
        else "every score keeps its bits"
    )
    return lines


def _as_json(label: str, here: Rehearsed, there: Rehearsed, count: int, differing: Differing) -> dict[str, Any]:
    about = ("python", "libraries", "scorer")
    return {
        "model": label,
        "rows": count,
        "here": {name: getattr(here, name) for name in about},
        "there": {name: getattr(there, name) for name in about},
        "differing": [
            {"job_id": place.job_id, "row": place.row, "here": one, "there": other} for place, one, other in differing
        ],
    }


def _interpreter(path: Path) -> Path:
    """Return the interpreter of an environment, or the file itself; raise NotFound where there is none."""
    python = path / "bin" / "python" if path.is_dir() else path
    if not python.exists():
        raise NotFound(f"There is no interpreter at {python}: give an environment's folder, or its python.")
    return python.absolute()  # not resolved: the link is what makes it an environment


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.rehearse", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", type=Path, required=True, metavar="OTHER_VENV", help="environment to compare with")
    parser.add_argument("--model", required=True, metavar="NAME", help="NAME, NAME@3 or NAME@alias; else its champion")
    parser.add_argument("--limit", type=int, default=1_000, metavar="N", help="the last N stored rows (1000)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


if __name__ == "__main__":
    sys.exit(run(main))

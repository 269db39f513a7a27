"""The proof of an uploaded model, in a process of its own with limits of time and memory.

A joblib file is a program: to read it may crash the process, loop for ever, or eat all memory. So it is read and
proved here (`python -m shared.registry.proof FOLDER`), without the service's settings and secrets, and whoever asked
lives on. What it leaves is a package, which the asking process checks before it registers it.
"""

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import shared
from shared.cards.card import Card
from shared.child import end_first, end_with_parent, limit_this_process
from shared.csv.format import CsvOptions
from shared.errors import ArtefactError, CardError, GuichetError, InvalidRequest
from shared.faults import storable
from shared.files import read_file
from shared.monitoring.drift.profiles import Profile
from shared.packages.package import CARD_FILE, MODEL_FILE, REFERENCE_FILE
from shared.packages.sample import write_rows
from shared.packages.skops_file import is_skops
from shared.packages.sources.archive import is_archive, model_within, unpack
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import Proved, prove

REQUEST, OUTCOME, RESULT, REPORT = "request.json", "outcome.json", "proved", "report.json"
PROFILE = "profile.json"
LOOK_SECONDS = 0.05  # between two looks at the process: what it takes beyond its memory is found so soon
ASK_SECONDS = 1.0  # between two questions whether the proof is still wanted
MESSAGE_LENGTH = 2_000  # of what the process says
NICENESS = 5  # processes that score come first
FILE_FACTOR = 4  # of the upload's limit: no file of the process may be larger
Work = Callable[[Path, dict[str, str], dict[str, Any], int], None]  # folder, files, options, largest file in bytes
_KEPT = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "COVERAGE_PROCESS_START")


class NotProved(Exception):
    """The upload became no model: `code`, and a message with what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class NotWanted(Exception):
    """Nobody wants the proof any more."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the process may take."""

    seconds: float
    memory_bytes: int
    file_bytes: int  # of an upload, also unpacked


def prove_apart(
    folder: Path,
    files: Mapping[str, str],
    options: Mapping[str, Any],
    limits: Limits,
    *,
    is_wanted: Callable[[], bool],
    module: str = "shared.registry.proof",
) -> Proved:
    """Prove the files of an upload in a process of its own; return what it made, which lies in the folder.

    `files` are the names of files in the folder, by the field of the form that they came in; `options` the other
    fields. `module` is run, and calls `main`. Raises NotProved with what to do, and NotWanted as soon as `is_wanted`
    says so.
    """
    request = {"files": dict(files), "options": dict(options), "limits": [limits.memory_bytes, limits.file_bytes]}
    (folder / REQUEST).write_text(json.dumps(request))
    arguments = [module, str(folder), str(os.getpid())]
    code = run_apart(arguments, limits, is_wanted, env=_environment(folder), cwd=folder)
    _check_outcome(folder, code)
    return _read_proved(folder)


def _environment(folder: Path) -> dict[str, str]:
    """Return the variables of the process: none that holds an address or a secret of the service."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    root = str(Path(shared.__file__).resolve().parents[1])
    return kept | threads | {"PYTHONPATH": root, "HOME": str(folder), "TMPDIR": str(folder)}


def run_apart(
    arguments: list[str],
    limits: Limits,
    is_wanted: Callable[[], bool],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    output: IO[bytes] | None = None,
) -> int:
    """Run a module of the service, with its arguments, in a process of its own; return its exit code.

    `output` takes what it prints. Raises NotProved where it takes too much, and NotWanted as soon as `is_wanted` says
    so. Nothing of it is left then, nor of what it started.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", *arguments],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=output or subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _watch(process, limits, is_wanted)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it, and what it started
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
    return process.returncode


def _watch(process: "subprocess.Popen[bytes]", limits: Limits, is_wanted: Callable[[], bool]) -> None:
    """Return when the process has ended; raise NotProved where it takes too much, NotWanted where nobody waits."""
    deadline = time.monotonic() + limits.seconds
    asked_at = time.monotonic()
    while process.poll() is None:
        now = time.monotonic()
        if now > deadline:
            raise NotProved(
                "timeout",
                f"the model was not read and proved within {limits.seconds:g} s, and its process was ended: it may "
                "hang, or need more time than MODEL_PROOF_SECONDS allows",
            )
        if _memory_of(process.pid) > limits.memory_bytes:
            raise _too_hungry(limits.memory_bytes)
        if now - asked_at > ASK_SECONDS:
            asked_at = now
            if not is_wanted():
                raise NotWanted
        time.sleep(LOOK_SECONDS)


def _memory_of(pid: int) -> int:
    """Return the bytes of memory that a process occupies; 0 if the system does not report it."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * resource.getpagesize()


def _too_hungry(memory_bytes: int) -> NotProved:
    return NotProved(
        "out_of_memory",
        f"the model took more than {memory_bytes / 1e9:.1f} GB of memory while it was read and proved: save a smaller "
        "one, or raise MODEL_PROOF_BYTES",
    )


def _check_outcome(folder: Path, code: int) -> None:
    """Raise NotProved unless the process ended normally and reported success."""
    try:
        outcome = json.loads(read_file(folder / OUTCOME, limit=1_000_000))
        error, message = outcome["error"], storable(str(outcome["message"]), MESSAGE_LENGTH)  # anyone's words
    except (OSError, ValueError, KeyError, TypeError):
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        raise NotProved(
            "model_crashed",
            f"the process that read and proved the model ended {how}: the file, or a library that it needs, takes its "
            "process down. Load it with joblib.load in a fresh Python here to see why",
        ) from None
    if error == "out_of_memory":
        limits = json.loads(read_file(folder / REQUEST))["limits"]
        raise _too_hungry(limits[0])
    if error is not None:
        raise NotProved(str(error)[:50], message.replace(f"{folder}/", "").rstrip("."))


def _read_proved(folder: Path) -> Proved:
    """Return the package that the process left, as far as it is one."""
    place = folder / RESULT
    try:
        lines = read_file(place / REFERENCE_FILE).splitlines()
        rows = [json.loads(line) for line in lines]
        report = json.loads(read_file(place / REPORT))
        card = Card.load(place / CARD_FILE)
        stored = json.loads(read_file(place / PROFILE))
        profile = None if stored is None else Profile.load(stored)
    except (OSError, ValueError, KeyError, TypeError, GuichetError) as error:
        raise NotProved("model_crashed", f"the proof left no package ({type(error).__name__})") from error
    return Proved(place / MODEL_FILE, card, rows, report, profile=profile)


# ── in the process ───────────────────────────────────────────────────────────────────────────────────────────────


def main(folder: Path, parent: int, work: "Work | None" = None) -> None:
    """Prove the upload in a folder, or do other work that makes a model of it, and leave the outcome there."""
    end_with_parent(parent)
    request = json.loads((folder / REQUEST).read_text())
    memory_bytes, file_bytes = request["limits"]
    limit_this_process(memory_bytes=memory_bytes, niceness=NICENESS, file_bytes=FILE_FACTOR * file_bytes)
    end_first()
    error: str | None = None
    message = ""
    try:
        (work or _prove)(folder, request["files"], request["options"], file_bytes)
    except MemoryError:
        error = "out_of_memory"
    except InvalidRequest as refusal:  # of rows to train on
        error, message = refusal.faults[0].code if refusal.faults else refusal.code, refusal.detail
    except (ArtefactError, CardError) as refusal:
        error, message = "model_refused", refusal.detail
        if isinstance(refusal.__cause__, MemoryError):
            error = "out_of_memory"
    except Exception as failure:  # noqa: BLE001 - the model is anyone's code
        error, message = "model_refused", f"the model cannot be added ({type(failure).__name__}: {failure})"
    (folder / OUTCOME).write_text(json.dumps({"error": error, "message": message}))


def _prove(folder: Path, files: dict[str, str], fields: dict[str, Any], file_bytes: int) -> None:
    paths: dict[str, Any] = {field: folder / name for field, name in files.items()}
    artefact = paths.pop("artefact")
    if artefact.stat().st_size and is_archive(artefact) and not is_skops(artefact):
        archive = folder / "archive"  # the name that sentences have
        unpack(artefact, archive, max_bytes=file_bytes)
        artefact = model_within(archive, artefact.name)
    if "code" in paths and is_archive(paths["code"]):
        unpack(paths["code"], folder / "code", max_bytes=file_bytes)
        paths["code"] = folder / "code"
    csv = fields.pop("csv", None)
    options = AddOptions(**paths, **fields, csv=None if csv is None else CsvOptions(**csv))
    with prove(artefact, options) as proved:
        leave(proved, folder)


def leave(proved: Proved, folder: Path) -> Path:
    """Write a package into the folder that the caller reads; return the package's folder."""
    result = folder / RESULT
    result.mkdir()
    shutil.copyfile(proved.artefact, result / MODEL_FILE)
    proved.card.dump(result / CARD_FILE)
    write_rows(result / REFERENCE_FILE, proved.reference)
    (result / REPORT).write_text(json.dumps(proved.report))
    (result / PROFILE).write_text(json.dumps(None if proved.profile is None else proved.profile.dump()))
    return result


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

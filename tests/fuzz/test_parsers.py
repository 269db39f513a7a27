"""Every parser of other people's bytes, given mutants: each is read, or refused by an error that is documented.

FUZZ_MUTANTS sets how many of each; a failure names the parser and the number by which it is made again.
"""

import json
import os
import resource
import subprocess
from pathlib import Path

import pytest

from tests.fuzz.parsers import PARSERS
from tests.support.stack import PYTHON, ROOT

pytestmark = pytest.mark.fuzz

MUTANTS = int(os.environ.get("FUZZ_MUTANTS", "3000"))
PART = {"workbook": 10, "mlflow": 3}  # so many times fewer: each has a process of its own; YAML is read slowly
MAX_SECONDS = 600
MEMORY = 4 << 30  # of addresses; Arrow reserves much more than it uses


@pytest.mark.parametrize("name", PARSERS)
def test_mutants_are_read_or_refused_as_is_documented(name: str, tmp_path: Path) -> None:
    last, count = tmp_path / "last", MUTANTS // PART.get(name, 1)
    done = subprocess.run(
        [PYTHON, "-m", "tests.fuzz.parsers", name, "--count", str(count), "--last", str(last)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=MAX_SECONDS,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
    )
    assert done.returncode == 0, f"mutant {last.read_text()} of {name} ended the process: {done.stderr[-2_000:]}"
    *wrong, sums = map(json.loads, done.stdout.splitlines())
    ends = ", ".join(f"{ending}: {number}" for ending, number in sorted(sums["ended"].items()))
    print(
        f"\nmake fuzz: {count} mutants of {name}, {ends}; the slowest took {sums['slowest']} s of the processor, the "
        f"process grew by {sums['grown_mb']} MB",
        end="",
    )
    assert not wrong, "\n\n".join(wrong[:5])
    assert sum(sums["ended"].values()) == count
    if name != "pickle":  # of which none may be taken; elsewhere, mutants that are all refused prove little
        assert sums["ended"]["taken"] > 0

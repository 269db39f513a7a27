"""The limits that a child process sets for itself, tried in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from shared.child import container_memory

ROOT = Path(__file__).resolve().parents[2]
MEMORY = 500_000_000


def run(code: str) -> "subprocess.CompletedProcess[str]":
    code = f"from shared.child import *\n{code}"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_child_takes_no_more_memory_than_its_limit():
    done = run(
        f"limit_this_process(memory_bytes={MEMORY}, niceness=0)\n"
        f"try:\n    bytearray({2 * MEMORY})\nexcept MemoryError:\n    print('full')"
    )
    assert (done.returncode, done.stdout) == (0, "full\n"), done.stderr


def test_child_writes_no_larger_file_than_its_limit(tmp_path):
    place = tmp_path / "large"
    done = run(
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"limit_this_process(memory_bytes={MEMORY}, niceness=0, file_bytes=1000)\n"
        f"file = open({str(place)!r}, 'wb'); file.write(bytes(2000)); file.flush()"
    )
    assert "File too large" in done.stderr
    assert place.stat().st_size == 1000


def test_limit_above_that_of_the_system_is_that_of_the_system():
    done = run(
        f"import resource; resource.setrlimit(resource.RLIMIT_DATA, ({MEMORY}, {MEMORY}))\n"
        f"limit_this_process(memory_bytes={4 * MEMORY}, niceness=0)\n"
        "print(resource.getrlimit(resource.RLIMIT_DATA)[1])"
    )
    assert (done.returncode, done.stdout) == (0, f"{MEMORY}\n"), done.stderr


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {"memory.max": "1572864000"}, 1_572_864_000),  # a container of Docker
        ("0::/\n", {"memory.max": "max"}, None),
        ("0::/\n", {}, None),  # the machine itself
        ("0::/a/b\n", {"a/memory.max": "500", "a/b/memory.max": "max"}, 500),  # a unit of systemd in a slice
        ("0::/a\n", {"memory.max": "700", "a/memory.max": "800"}, 700),
        ("4:cpu,memory:/docker/1f\n0::/\n", {"memory/memory.limit_in_bytes": "900"}, 900),  # its path is the host's
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712"}, None),
    ],
)
def test_memory_of_the_container_is_that_of_its_tightest_group(tmp_path, groups, files, expected):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        file = tmp_path / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    assert container_memory(tmp_path) == expected


def test_without_cgroups_there_is_no_limit(tmp_path):
    assert container_memory(tmp_path) is None


def test_child_leaves_others_the_processor():
    done = run(f"limit_this_process(memory_bytes={MEMORY}, niceness=5); import os; print(os.nice(0))")
    assert int(done.stdout) == min(19, os.nice(0) + 5)


def test_child_ends_with_its_parent():
    child = "from shared.child import *; end_with_parent(); print('ready', flush=True); import time; time.sleep(60)"
    parent = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    [grandchild] = psutil.Process(parent.pid).children()
    parent.kill()
    parent.wait()
    psutil.wait_procs([grandchild], timeout=10)
    assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE
    parent.stdout.close()


def test_child_whose_parent_has_ended_already_ends_at_once():
    done = run("end_with_parent(1 if __import__('os').getppid() != 1 else 2); print('goes on')")
    assert (done.returncode, done.stdout) == (1, "")

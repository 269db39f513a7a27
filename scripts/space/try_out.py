"""`make space-image`: build the image of the Space as the hub would, and try it out in containers of its own.

It needs a Docker Engine. DOCKER is the client (`docker`), DOCKER_BUILD holds more options for `docker build`
(`--network host`, say).
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from api.auth.callers import make_key
from scripts.checkout import ROOT, Failure
from scripts.release.smoke import Service, checks
from scripts.space.folder import write_space

IMAGE = "guichet-space"
_DOCKER = os.environ.get("DOCKER") or "docker"
_READY_SECONDS = 120.0
_ROW = ROOT / "examples" / "attrition" / "request.json"


@dataclass
class Report:
    """The checks and their results."""

    lines: list[tuple[str, str]] = field(default_factory=list)

    def add(self, what: str, detail: str) -> None:
        """Print a finding, and keep it."""
        print(f"{what:<34} {detail}", flush=True)
        self.lines.append((what, detail))

    def text(self) -> str:
        """Return the report as a table."""
        rows = "\n".join(f"| {what} | {detail} |" for what, detail in self.lines)
        return f"| tried | found |\n|---|---|\n{rows}\n"


@dataclass(frozen=True, slots=True)
class Container:
    """A running Space."""

    id: str
    service: Service
    began: float

    @property
    def logs(self) -> str:
        """Return the container's output."""
        return docker("logs", self.id, quiet=True)

    def wait_until_ready(self) -> float:
        """Return the seconds from its start until it is ready; raise Failure if it does not get ready."""
        while self.service.ask("/readyz")[0] != 200:
            running = docker("inspect", "-f", "{{.State.Running}}", self.id).strip() == "true"
            if not running or time.monotonic() - self.began > _READY_SECONDS:
                raise Failure(f"the Space did not get ready:\n{self.logs}")
            time.sleep(0.05)
        return time.monotonic() - self.began


def docker(*arguments: str, quiet: bool = False, check: bool = True) -> str:
    """Run a docker command; return its output (with `quiet`, also its stderr). Raises Failure."""
    beside = subprocess.STDOUT if quiet else subprocess.PIPE
    done = subprocess.run([_DOCKER, *arguments], stdout=subprocess.PIPE, stderr=beside, text=True, check=False)
    if check and done.returncode:
        raise Failure(f"docker {arguments[0]} failed: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the image and try it out; return 0, or 1 with the reason."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.space.try_out", description="Build the Space and try it out."
    )
    parser.add_argument("--report", type=Path, help="write the findings there, as a table")
    parser.add_argument("--keep-image", action="store_true", help="take the image that there is")
    options = parser.parse_args(arguments)
    report = Report()
    try:
        docker("version")
        if not options.keep_image:
            build(report)
        try_without_storage(report)
        try_with_storage(report)
        try_bad_key(report)
    except (Failure, OSError) as problem:
        print(f"guichet: {problem}", file=sys.stderr)
        return 1
    if options.report is not None:
        options.report.write_text(report.text(), encoding="utf-8")
    return 0


def build(report: Report) -> None:
    """Assemble the Space and build it."""
    with tempfile.TemporaryDirectory(prefix="guichet-space-") as place:
        folder = Path(place) / "space"
        files = write_space(folder, space="owner/name")
        began = time.monotonic()
        command = [_DOCKER, "build", *shlex.split(os.environ.get("DOCKER_BUILD", "")), "-t", IMAGE, str(folder)]
        # Stages that are not needed must not be built; Debian's engine has the builder that knows, if it is asked.
        done = subprocess.run(
            command, env=os.environ | {"DOCKER_BUILDKIT": "1"}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Failure(f"docker build failed:\n{(done.stdout + done.stderr)[-4000:]}")
        seconds = time.monotonic() - began
    base, whole = (int(docker("inspect", "-f", "{{.Size}}", name)) for name in (_base_image(), IMAGE))
    added = f"{(whole - base) / 1e6:.0f} MB on top of {_base_image()}"
    report.add("build", f"{len(files)} files, {seconds:.0f} s, {added}")


def _base_image() -> str:
    text = (ROOT / "Dockerfile.api").read_text(encoding="utf-8")
    return next(line.partition("=")[2] for line in text.splitlines() if line.startswith("ARG PYTHON_IMAGE="))


@contextmanager
def space(*options: str) -> Iterator[Container]:
    """Yield a container that starts, on a port of its own on 127.0.0.1; remove it afterwards."""
    began = time.monotonic()
    name = docker("run", "-d", "-p", "127.0.0.1::7860", *options, IMAGE).strip()
    try:
        yield Container(name, _service(name), began)
    finally:
        docker("rm", "-f", "-v", name)


def _service(name: str) -> Service:
    ports = docker("port", name, "7860/tcp", check=False).split()
    return Service(f"http://{ports[0]}" if ports else "http://127.0.0.1:1")


def predict(service: Service, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], dict[str, object]]:
    """Send the example row; return status, headers and body."""
    head = {"Content-Type": "application/json", "Accept": "application/vnd.guichet+json", **(headers or {})}
    request = urllib.request.Request(service.url + "/predict", data=_ROW.read_bytes(), headers=head)  # noqa: S310 - ours
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - the same
            return answer.status, dict(answer.headers), json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), json.loads(error.read())


def try_without_storage(report: Report) -> None:
    """A Space without storage: it warns, serves, limits, and keeps its data until the container is replaced."""
    with space("--memory", "2g", "--cpus", "2") as container:
        report.add(
            "cold start, new", f"ready {container.wait_until_ready():.1f} s after `docker run`; {_work(container)}"
        )
        _must("warning: /data is not there" in container.logs, "it does not warn that its data will be lost")
        report.add("without /data", "warns, and keeps jobs and models in the container")
        user = docker("exec", container.id, "id", "-u").strip()
        _must(user == "1000", f"it runs as user {user} and not as 1000")
        report.add("user, port", "uid 1000, 7860")
        for what, detail in checks(container.service, version="", wait=10):
            report.add(f"smoke: {what}", detail)
        report.add("memory, every model", _memory(container))
        status, _, result = predict(container.service)
        _must(status == 200, f"/predict answers {status}")
        _try_quota(report, container)
        docker("restart", container.id)
        again = Container(container.id, _service(container.id), time.monotonic())
        seconds = again.wait_until_ready()
        kept = again.service.ask(f"/jobs/{result['job_id']}")[0]
        _must(kept == 200, f"a job is {kept} after a restart")
        report.add("docker restart", f"ready {seconds:.1f} s later, the job is still there; {_work(again)}")
        _try_stop(report, again)


def _try_quota(report: Report, container: Container) -> None:
    visitor = {"X-Forwarded-For": "203.0.113.7"}
    passed, status = 0, 200
    headers: dict[str, str] = {}
    while status == 200 and passed < 100:
        status, headers, _ = predict(container.service, visitor)
        passed += status == 200
    wait = int(headers.get("retry-after", headers.get("Retry-After", "0")))
    _must(status == 429 and wait > 0, f"after {passed} predictions the answer is {status}, Retry-After {wait}")
    other = predict(container.service, {"X-Forwarded-For": "203.0.113.8"})[0]
    _must(other == 200, f"another address gets {other}")
    time.sleep(wait)
    back = predict(container.service, visitor)[0]
    _must(back == 200, f"after Retry-After the answer is {back}")
    report.add("limit", f"{passed} at once, then 429 with Retry-After {wait}; served again after it")


def _try_stop(report: Report, container: Container) -> None:
    began = time.monotonic()
    docker("stop", "--time", "20", container.id)
    code = docker("inspect", "-f", "{{.State.ExitCode}}", container.id).strip()
    _must(code == "0", f"it ends with {code} after SIGTERM")
    report.add("SIGTERM", f"exit code 0 after {time.monotonic() - began:.1f} s")


def try_with_storage(report: Report) -> None:
    """A Space with storage at /data: jobs and keys outlive the container."""
    volume = docker("volume", "create").strip()
    mount = ("-v", f"{volume}:/data")
    first, second = make_key()[0], make_key()[0]
    try:
        with space(*mount) as container:  # a new volume belongs to root
            container.wait_until_ready()
            _must("warning: /data is not writable" in container.logs, "it does not warn of a /data it cannot write to")
            report.add("/data of somebody else", "warns, and serves from the container")
        docker("run", "--rm", "--user", "0", "--entrypoint", "chown", *mount, IMAGE, "1000:1000", "/data")
        with space(*mount, "-e", f"ADMIN_KEY={first}") as container:
            container.wait_until_ready()
            _must("data in /data" in container.logs, "it does not use /data")
            _, _, result = predict(container.service)
            listed = Service(container.service.url, first).ask("/jobs")[0]
            _must(listed == 200, f"the key in ADMIN_KEY gets {listed}")
        with space(*mount, "-e", f"ADMIN_KEY={second}") as container:
            seconds = container.wait_until_ready()
            report.add("cold start, kept data", f"ready {seconds:.1f} s after `docker run`; {_work(container)}")
            kept = container.service.ask(f"/jobs/{result['job_id']}")[0]
            _must(kept == 200, f"a job is {kept} in the next container")
            codes = [Service(container.service.url, key).ask("/jobs")[0] for key in (first, second)]
            _must(codes == [401, 200], f"after a change of ADMIN_KEY the old and the new key get {codes}")
        report.add("/data", "jobs outlive the container; a new ADMIN_KEY ends the former one")
    finally:
        docker("volume", "rm", "-f", volume)


def try_bad_key(report: Report) -> None:
    """An ADMIN_KEY that somebody thought up stops the start."""
    with space("-e", "ADMIN_KEY=changeme") as container:
        code = docker("wait", container.id).strip()
        logs = container.logs
    _must(code == "1" and "api.keys generate" in logs, f"ADMIN_KEY=changeme ends with {code}: {logs}")
    _must("Traceback" not in logs, "it shows a stack trace")
    report.add("ADMIN_KEY=changeme", "refused with a sentence, exit code 1")


def _work(container: Container) -> str:
    """Return the processor time of the start: on a busy machine the wall time alone says little."""
    fields = docker("exec", container.id, "cat", "/proc/1/stat").rpartition(")")[2].split()
    ticks = sum(int(field) for field in fields[11:15])  # its own and its children's, in user and kernel mode (proc(5))
    return f"{ticks / os.sysconf('SC_CLK_TCK'):.1f} s of a processor"


def _memory(container: Container) -> str:
    used = docker("stats", "--no-stream", "--format", "{{.MemUsage}}", container.id).split("/")[0].strip()
    return f"{used} after some predictions"


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Failure(otherwise)


if __name__ == "__main__":
    sys.exit(main())

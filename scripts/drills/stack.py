"""A stack of docker-compose.yml under its own project name: the driver's calls of Compose and the engine."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from scripts.checkout import ROOT
from scripts.servers import processes


class Broken(Exception):
    """The stack does not do what it should; the message has the observation."""


@dataclass
class Stack:
    """One project of containers. `env` overrides the values of .env."""

    env: dict[str, str]
    compose: list[str] = field(default_factory=lambda: find_compose())

    def run(self, *arguments: str, timeout: float = 1800, check: bool = True, **env: str) -> str:
        """Run a command of Compose and return its output. Raises Broken when it fails, unless `check` is false."""
        return _call([*self.compose, *arguments], os.environ | self.env | env, timeout=timeout, check=check)

    def engine(self, *arguments: str, timeout: float = 120) -> str:
        """Run a command of the engine and return its output."""
        return _call(["docker", *arguments], dict(os.environ), timeout=timeout, check=True)

    def containers(self, service: str) -> list[str]:
        """Return the ids of a service's running containers, oldest first."""
        ids = self.run("ps", "-q", service).split()
        if not ids:
            return []
        lines = self.engine("inspect", "--format", "{{.Created}} {{.Id}} {{.State.Running}}", *ids).splitlines()
        return [line.split()[1] for line in sorted(lines) if line.endswith("true")]

    def health(self, container: str) -> str:
        """Return the last result of the container's health check."""
        return self.engine("inspect", "--format", "{{.State.Health.Status}}", container).strip()

    def revision(self, container: str) -> str:
        """Return the revision on the label of a container's image."""
        label = '{{index .Config.Labels "org.opencontainers.image.revision"}}'
        return self.engine("inspect", "--format", label, container).strip()

    def sql(self, statement: str) -> list[list[str]]:
        """Ask the stack's database; return rows of text."""
        output = self.run(
            *("exec", "-T", "postgres", "psql", "-U", "postgres", "-d", "guichet", "-v", "ON_ERROR_STOP=1", "-qAt"),
            *("-F", "\t", "-c", statement),
        )
        return [line.split("\t") for line in output.splitlines() if line]

    def await_health(self, *containers: str, seconds: float = 300) -> None:
        """Wait until containers are healthy."""
        wait_until(lambda: all(self.health(one) == "healthy" for one in containers), "healthy containers", seconds)


def find_compose() -> list[str]:
    """Return the command of Compose v2 if it is installed, else that of v1. Raises Broken without either."""
    if shutil.which("docker") is None:
        raise Broken("there is no docker on PATH: install Docker Engine and Compose first")
    if subprocess.run(["docker", "info"], capture_output=True).returncode:  # noqa: S607 - on PATH by design
        raise Broken("the Docker Engine does not answer: start it, or join the group that may use it")
    if not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:  # noqa: S607
        return ["docker", "compose"]
    if shutil.which("docker-compose") is None:
        raise Broken("there is no Docker Compose: install the plugin `docker compose` or `docker-compose` 1.29")
    return ["docker-compose"]


def wait_until(holds: Callable[[], bool], what: str, seconds: float, every: float = 0.5) -> float:
    """Wait for something; return after how many seconds it held. Raises Broken when it did not in time."""
    start = time.monotonic()
    if not processes.wait_until(holds, timeout=seconds, every=every):
        raise Broken(f"waited {seconds:.0f} s in vain for {what}")
    return time.monotonic() - start


def _call(command: list[str], env: dict[str, str], *, timeout: float, check: bool) -> str:
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    if check and done.returncode:
        raise Broken(f"`{' '.join(command)}` ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout if check else done.stdout + done.stderr

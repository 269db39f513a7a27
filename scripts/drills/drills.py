"""Faults in the stack under load; each drill reports its outcome."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from scripts.drills.files import make_csv, submit_csv
from scripts.drills.stack import Broken, Stack, wait_until
from scripts.drills.traffic import Client, Traffic

DRAINED_SECONDS = 120.0  # everything that was accepted before a drill ended has to be done by then
FILE_ROWS = 20_000  # of the file that is being scored meanwhile
_KILLS = 8
# Inside a container, where the first process is an init, which has started the worker, which has started the pool.
_POOL = """
import os, signal, pathlib
for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
    try:
        if int(stat.read_text().rsplit(")", 1)[1].split()[1]) > 1:
            os.kill(int(stat.parent.name), signal.SIGKILL)
            print("killed")
    except (FileNotFoundError, ProcessLookupError):
        pass  # it has ended by itself
"""
_SCALED = 3


@dataclass
class Outcome:
    """What a drill did to clients."""

    name: str
    seconds: float  # the drill itself
    drained: float  # from its end until everything accepted before was terminal
    accepted: int  # submissions while it lasted
    gap: float  # the longest time in which nobody was accepted
    slowest: float | None  # the slowest /predict that was answered within its wait
    again: str  # requests that had to be sent again


def run_drill(stack: Stack, traffic: Traffic, name: str, act: Callable[[Stack], None]) -> Outcome:
    """Run a drill on the stack under load, wait until the earlier work is done, and report the result."""
    began, count, hitches = traffic.now(), len(traffic.accepted), traffic.hitches.copy()
    file = submit_csv(Client(traffic.ports, traffic.key), make_csv(FILE_ROWS))
    traffic.files[file] = traffic.accepted[file] = FILE_ROWS
    act(stack)
    ended = traffic.now()
    drained = drain(stack)
    time.sleep(3)  # undisturbed again, before the next one
    if traffic.broken:
        raise Broken(f"{name}: {traffic.broken[0]}")
    waits = [seconds for asked_at, seconds in traffic.waits if asked_at >= began]
    again = traffic.hitches - hitches
    return Outcome(
        name,
        ended - began,
        drained,
        len(traffic.accepted) - count,
        traffic.longest_gap(began),
        max(waits, default=None),
        ", ".join(f"{number} x {reason}" for reason, number in again.most_common()) or "none",
    )


def drain(stack: Stack) -> float:
    """Wait until all jobs accepted so far are terminal; return the seconds that it took."""
    moment = stack.sql("SELECT clock_timestamp()")[0][0]
    left = f"SELECT count(*) FROM jobs WHERE state IN ('queued', 'running') AND created_at < '{moment}'"  # noqa: S608
    return wait_until(lambda: stack.sql(left) == [["0"]], "the jobs accepted so far", DRAINED_SECONDS)


def nothing(stack: Stack) -> None:
    """Let the clients be, for comparison."""
    time.sleep(10)


def kill_worker(stack: Stack) -> None:
    """SIGKILL the only container of the interactive lane, and start it again."""
    stack.engine("kill", stack.containers("worker-interactive")[0])
    stack.run("up", "-d", "--no-deps", "--no-build", "worker-interactive")
    stack.await_health(*stack.containers("worker-interactive"))


def kill_pools(stack: Stack) -> None:
    """SIGKILL every process of both workers but the first, again and again: the pool starts new ones."""
    for _ in range(_KILLS):
        for service in ("worker-interactive", "worker-bulk"):
            if not stack.run("exec", "-T", service, "python", "-c", _POOL):
                raise Broken(f"there was no process to kill in {service}")
        time.sleep(5)


def end_worker(stack: Stack) -> None:
    """Let a worker end by itself: the engine starts it again."""
    container = stack.containers("worker-interactive")[0]
    stack.run("exec", "-T", "worker-interactive", "python", "-c", "import os; os.kill(1, 15)")
    count = ("inspect", "--format", "{{.RestartCount}}", container)
    wait_until(lambda: stack.engine(*count).strip() != "0", "the engine to start the worker again", 180)
    stack.await_health(container)


def restart_redis(stack: Stack) -> None:
    """Stop and start Redis; the append-only file keeps its content."""
    stack.run("restart", "redis")
    stack.await_health(*stack.containers("redis"))


def flush_redis(stack: Stack) -> None:
    """Empty Redis three times: every message and every wake-up that was pending is gone."""
    flush = "REDISCLI_AUTH=$(cat /run/redis-secrets/redis_password) redis-cli FLUSHALL"
    for _ in range(3):
        stack.run("exec", "-T", "redis", "sh", "-c", flush)
        time.sleep(1)


def restart_postgres(stack: Stack) -> None:
    """Stop and start PostgreSQL (fast shutdown)."""
    stack.run("restart", "postgres")
    stack.await_health(*stack.containers("postgres"))


def kill_postgres(stack: Stack) -> None:
    """SIGKILL PostgreSQL and start it again: it recovers from its log."""
    container = stack.containers("postgres")[0]
    stack.engine("kill", container)
    stack.engine("start", container)
    stack.await_health(container)


def scale_up(stack: Stack) -> None:
    """Start more containers of the interactive lane, see that each of them claims, and go back to one."""
    stack.run("up", "-d", "--no-deps", "--no-build", "--scale", f"worker-interactive={_SCALED}", "worker-interactive")
    containers = stack.containers("worker-interactive")
    if len(containers) != _SCALED:
        raise Broken(f"{len(containers)} interactive workers run, not {_SCALED}")
    stack.await_health(*containers)
    hosts = ", ".join(f"'{one[:12]}'" for one in containers)
    # Whoever claims a job stands in it while it runs; that each of them can is seen in the table of workers.
    seen = f"SELECT count(DISTINCT split_part(id, ':', 1)) FROM workers WHERE split_part(id, ':', 1) IN ({hosts})"  # noqa: S608
    if stack.sql(seen) != [[str(_SCALED)]]:
        raise Broken("not every new worker was seen in the table of workers")
    time.sleep(5)
    stack.run("up", "-d", "--no-deps", "--no-build", "--scale", "worker-interactive=1", "worker-interactive")


def migrate(stack: Stack) -> None:
    """Run the migrations of the next release beside the last one, which continues."""
    stack.run("run", "--rm", "--no-deps", "-T", "migrate")


def roll(stack: Stack, services: tuple[str, ...]) -> None:
    """Replace containers by those of the next release: the new one starts beside the old one, which then ends."""
    for service in services:
        old = stack.containers(service)
        up = ("up", "-d", "--no-deps", "--no-build", "--no-recreate", "--scale")
        stack.run(*up, f"{service}={2 * len(old)}", service)
        new = [one for one in stack.containers(service) if one not in old]
        stack.await_health(*new)
        for container in old:
            stack.engine("stop", "--time", "90", container)
            stack.engine("rm", container)
        running = stack.containers(service)
        if running != new or any(stack.revision(one) != stack.env["REVISION"] for one in running):
            raise Broken(f"{service} is not what the next release says")


def roll_workers(stack: Stack) -> None:
    """Replace both kinds of workers, one after the other."""
    roll(stack, ("worker-interactive", "worker-bulk"))


def roll_api(stack: Stack) -> None:
    """Replace the API: the next one listens on the next port of the range, then the last one ends."""
    roll(stack, ("api",))


def replace_rest(stack: Stack) -> None:
    """Replace Flower, which may be away for a moment."""
    stack.run("up", "-d", "--no-deps", "--no-build", "flower")
    stack.await_health(*stack.containers("flower"))


DRILLS: tuple[tuple[str, Callable[[Stack], None]], ...] = (
    ("nothing, for comparison", nothing),
    ("SIGKILL of the interactive worker's container", kill_worker),
    (f"SIGKILL of every process in both workers but the first, {_KILLS} times", kill_pools),
    ("SIGTERM inside the worker: it ends, the engine starts it again", end_worker),
    ("restart of Redis", restart_redis),
    ("FLUSHALL of Redis, three times", flush_redis),
    ("restart of PostgreSQL", restart_postgres),
    ("SIGKILL of PostgreSQL", kill_postgres),
    (f"{_SCALED} interactive workers, then 1 again", scale_up),
)
NEXT_RELEASE: tuple[tuple[str, Callable[[Stack], None]], ...] = (
    ("migrations of the next release", migrate),
    ("rolling replacement of the workers", roll_workers),
    ("rolling replacement of the API", roll_api),
    ("replacement of Flower", replace_rest),
)

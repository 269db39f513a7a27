"""`make e2e-compose`: start the stack of docker-compose.yml, use it, break it under load, and write a report.

It runs under a project name and ports of its own, beside a stack that may be running, and removes what it started.
COMPOSE_FILE may name an override file as well, as always with Compose.
"""

import argparse
import http.client
import json
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from scripts.checkout import ROOT
from scripts.drills import drills, report
from scripts.drills.files import check_csv
from scripts.drills.ledger import make_ledger
from scripts.drills.stack import Broken, Stack, wait_until
from scripts.drills.traffic import Client, Traffic
from scripts.local.probes import ask

_PORTS = (18000, 18001)
_FLOWER_PORT = 15555
_TAGS = ("e2e", "e2e-next")
_ROLES = "SELECT DISTINCT usename FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename <> 'postgres'"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the whole of it; return 0, or 1 when something is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m scripts.drills.e2e", description="Try out the stack for real.")
    parser.add_argument("--report", type=Path, default=ROOT / "docs" / "compose.md", help="where the report goes")
    parser.add_argument("--only", metavar="WORD", help="only the drills whose name has this word; no report")
    parser.add_argument("--fresh", action="store_true", help="build the images without the engine's cache")
    parser.add_argument("--keep", action="store_true", help="leave the stack running in the end")
    options = parser.parse_args(arguments)
    try:
        stack = Stack(
            {
                "COMPOSE_PROJECT_NAME": "guichet-e2e",
                "API_PORT": f"{_PORTS[0]}-{_PORTS[-1]}",
                "FLOWER_PORT": str(_FLOWER_PORT),
                "TAG": _TAGS[0],
                "FLOWER_PASSWORD": secrets.token_urlsafe(16),
                "POSTGRES_PASSWORD": "",  # made by the stack
                "REDIS_PASSWORD": "",
            }
        )
        stack.run("down", "-v", "--remove-orphans")
        try:
            text = drive(stack, only=options.only, fresh=options.fresh)
        except (Broken, OSError, http.client.HTTPException):
            print(stack.run("ps", check=False), stack.run("logs", "--tail", "15", check=False), file=sys.stderr)
            raise
        finally:
            if not options.keep:
                stack.run("down", "-v", "--remove-orphans")
    except (Broken, OSError, http.client.HTTPException) as problem:
        print(f"guichet: {problem}", file=sys.stderr)
        return 1
    if not options.only:
        options.report.write_text(text, encoding="utf-8")
        _say(f"report in {options.report}")
    return 0


def drive(stack: Stack, *, only: str | None, fresh: bool) -> str:
    """Do everything in order; return the report."""
    facts = {"machine": report.describe_machine(), "Compose": stack.run("version", "--short").strip()}
    began = time.monotonic()
    stack.run("build", *(["--no-cache"] if fresh else []), "--build-arg", f"REVISION={_TAGS[0]}")
    facts[f"both images built, {'without' if fresh else 'with'} the engine's cache"] = (
        f"{time.monotonic() - began:.0f} s"
    )
    # The next release, for the rolling replacement.
    stack.run("build", "--build-arg", f"REVISION={_TAGS[1]}", TAG=_TAGS[1])
    facts |= {image: _added(stack, f"{image}:{_TAGS[0]}") for image in ("guichet-api", "guichet-worker")}
    checks = [("a placeholder as password", refuse_placeholder(stack))]
    _say(checks[-1][1])
    began = time.monotonic()
    stack.run("up", "-d", "--no-build")
    wait_until(lambda: ask(f"http://127.0.0.1:{_PORTS[0]}/readyz")[0] == 200, "the API to be ready", 300)
    facts["from `up` to ready, with the example models trained"] = f"{time.monotonic() - began:.0f} s"
    stack.await_health(*(one for name in ("worker-interactive", "worker-bulk") for one in stack.containers(name)))
    made = stack.run("run", "--rm", "-T", "keys", "create", "--name", "e2e")
    key = next(line.split()[1] for line in made.splitlines() if line.startswith("key:"))
    client = Client(_PORTS[:1], key)
    checks += use(stack, client)
    checks += inspect(stack)
    for name, detail in checks[1:]:
        _say(f"{name}: {detail}")
    others = int(stack.sql("SELECT count(*) FROM jobs")[0][0])
    traffic = Traffic(_PORTS, key)
    traffic.start()
    outcomes = []
    try:
        for name, act in drills.DRILLS:
            if not only or only in name:
                outcomes.append(drills.run_drill(stack, traffic, name, act))
                _say(str(outcomes[-1]))
        stack.env |= {"TAG": _TAGS[1], "REVISION": _TAGS[1]}
        for name, act in drills.NEXT_RELEASE:
            if not only or only in name:
                outcomes.append(drills.run_drill(stack, traffic, name, act))
                _say(str(outcomes[-1]))
    finally:
        traffic.stop()
    if traffic.broken:
        raise Broken(traffic.broken[0])
    drills.drain(stack)
    for job, rows in traffic.files.items():
        check_csv(Client(_PORTS, key), job, rows)
    checks.append(
        ("files that were being scored while things broke", f"{len(traffic.files)}, each row once and in order")
    )
    ledger = make_ledger(stack, traffic.accepted, others=others)
    _say(str(ledger))
    return report.render(facts, checks, outcomes, ledger, len(traffic.files))


def refuse_placeholder(stack: Stack) -> str:
    """Check that nothing starts with a placeholder; return the sentence of the refusal."""
    output = stack.run("up", "-d", "--no-build", check=False, POSTGRES_PASSWORD="change-me-please")  # noqa: S106
    running = stack.run("ps", "-q", "postgres").split() + stack.run("ps", "-q", "redis").split()
    sentence = next(
        (line.split("guichet: ", 1)[1] for line in stack.run("logs", "secrets").splitlines() if "guichet: " in line), ""
    )
    if running or "placeholder" not in sentence:
        raise Broken(f"a placeholder was not refused: {output[-500:]} {sentence}")
    stack.run("down", "-v")
    return f'refused, and nothing else was started: "{sentence}"'


def use(stack: Stack, client: Client) -> list[tuple[str, str]]:
    """Use the stack as a caller does, through its published ports."""
    row = json.loads((ROOT / "examples" / "attrition" / "request.json").read_text(encoding="utf-8"))
    checks = []
    status, _ = Client(_PORTS[:1], "guichet_wrong").json("POST", "/jobs", row)
    checks.append(("a wrong key", _expect(status, 401)))
    status, job = client.json("POST", "/jobs", row, Prefer="respond-async")
    _expect(status, 202)
    seconds = wait_until(
        lambda: client.json("GET", f"/jobs/{job['id']}")[1]["status"] == "succeeded", "the first job", 30, every=0.02
    )
    result = client.json("GET", f"/jobs/{job['id']}")[1]["result"]
    checks.append(
        ("submit and poll", f"202, then {result['label']} ({result['probability']:.3f}) {seconds:.2f} s later")
    )
    began = time.monotonic()
    status, result = client.json("POST", "/predict", row)
    checks.append(("`/predict`, waiting", f"{_expect(status, 200)} in {(time.monotonic() - began) * 1000:.0f} ms"))
    rows = [row["features"]] * 250  # more than the interactive lane takes
    status, batch = client.json("POST", "/predict_batch", {"rows": rows}, Prefer="wait=30")
    checks.append(("a batch of 250 rows", f"{_expect(status, 200)}, {len(batch['items'])} results"))
    content = (ROOT / "examples" / "attrition" / "rows.csv").read_bytes()
    status, answer = client.ask("POST", "/predict_csv", content, {"Content-Type": "text/csv"})
    _expect(status, 202)
    job = json.loads(answer)["id"]
    wait_until(lambda: client.json("GET", f"/jobs/{job}")[1]["status"] == "succeeded", "the file", 60)
    counts = client.json("GET", f"/jobs/{job}")[1]["counts"]
    scored = f"{counts['succeeded']} rows scored, {counts['failed']} with errors"
    checks.append(("a CSV file with two bad rows", scored))
    workers = f"http://127.0.0.1:{_FLOWER_PORT}/workers"
    logins = (None, "guichet:wrong", f"guichet:{stack.env['FLOWER_PASSWORD']}")
    answers = [ask(workers, login=login, timeout=10)[0] for login in logins]
    if answers != [401, 401, 200]:
        raise Broken(f"Flower answered {answers} without a login, with a wrong one and with the right one")
    checks.append(("Flower without a login, with a wrong one, with its own", "401, 401, 200"))
    return checks


def inspect(stack: Stack) -> list[tuple[str, str]]:
    """Inspect the containers from outside: their users, their writable folders, their complaints."""
    services = ("api", "worker-interactive", "worker-bulk", "flower")
    users = {stack.run("exec", "-T", name, "id", "-u").strip() for name in services}
    if users != {"1000"}:
        raise Broken(f"containers run as {users}, not as 1000")
    for name in services:
        output = stack.run("exec", "-T", name, "sh", "-c", "touch /srv/guichet/x || touch /opt/venv/x", check=False)
        if output.count("Read-only file system") != 2:
            raise Broken(f"{name} can write where it should not: {output}")
    roles = {row[0] for row in stack.sql(_ROLES)}
    if roles != {"guichet_app"}:
        raise Broken(f"the service is {roles} to the database, not guichet_app alone")
    output = stack.run("exec", "-T", "api", "ls", "/run/servers", check=False)
    if "No such file or directory" not in output:
        raise Broken(f"the API sees the passwords of the servers: {output}")
    stack.run("exec", "-T", "api", "python", "-m", "api.check")  # Broken, with its lines, where something is amiss
    published = stack.engine("ps", "--filter", f"name={stack.env['COMPOSE_PROJECT_NAME']}", "--format", "{{.Ports}}")
    ports = [port for line in published.split() for port in line.split(",") if "->" in port]
    if len(ports) != 2 or not all(port.startswith("127.0.0.1:") for port in ports):
        raise Broken(f"published are {ports}, not the API and Flower on 127.0.0.1")
    complaints = [
        line
        for name in ("api", "worker-interactive", "worker-bulk")
        for line in stack.run("logs", name).splitlines()
        if '"level":"WARNING"' in line or '"level":"ERROR"' in line
    ]
    if complaints:
        raise Broken(f"in peace, the log has {len(complaints)} warnings, e.g. {complaints[0]}")
    return [
        ("user of our containers", "1000"),
        ("writing to their file systems", "refused"),
        ("what they are to the database", "guichet_app, which may not change tables"),
        ("`python -m api.check`", "nothing amiss"),
        ("published", ", ".join(sorted(ports))),
        ("warnings in the logs so far", "none"),
    ]


def _added(stack: Stack, image: str) -> str:
    """Return the size that an image adds to its base, and the share of libraries."""
    sizes = stack.engine("history", "--no-trunc", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}", image)
    layers = [line.split(" ", 1) for line in sizes.splitlines()]
    own = layers[: next(index for index, (_, made) in enumerate(layers) if "PYTHONDONTWRITEBYTECODE" in made)]
    total = sum(int(size) for size, _ in own)
    largest = max(int(size) for size, _ in own)
    return f"adds {total / 1e6:.1f} MB to python:3.13-slim, {largest / 1e6:.1f} MB of them libraries"


def _expect(status: int, expected: int) -> str:
    if status != expected:
        raise Broken(f"an answer had the status {status}, not {expected}")
    return str(status)


def _say(text: str) -> None:
    print(f"guichet: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

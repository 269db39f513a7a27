"""`make bench-shadow`: requests to a model with a challenger and with a self-audit, beside the same service without.

Three services of one runtime side by side, each with a database of its own and two versions of one model: `plain`
scores nothing again, `audited` audits itself as it does unless a setting says otherwise, and `challenger` has a
challenger besides. Each is asked in turn, first by one client (latency), then by several at once (throughput), so that
all meet the same weather; after a round with a challenger its backlog is awaited, so that no round pays for another's.
Compared are neighbouring rounds, and the processor time of all processes of each service over the whole run, which
holds what is done beside the requests, too.

At the end the versions of `plain` are promoted in turn, while several clients ask: what is reported is the time from
the promotion to the first answer of the new version, and to the last one of the old version.
"""

import argparse
import http.client
import json
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness.command import Result, run_command
from benchmarks.harness.machine import describe
from benchmarks.harness.stacks import ROOT, Stack
from benchmarks.observability import BODY, processor_seconds, running

MODEL = "attrition"
WARM = 50  # requests to each before anything is measured
BACKLOG_SECONDS = 120.0
PROMOTION_SECONDS = 6.0  # a promotion takes effect within 5 s
FIGURES = ("p50_ms", "p95_ms", "per_second")
SERVICES = {"plain": {"SELF_AUDIT_SHARE": "0"}, "audited": {}, "challenger": {}}
PAIRS = (("challenger", "audited"), ("audited", "plain"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", choices=["queue", "sync"], default="queue")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of each, in turn (default 20)")
    parser.add_argument("--requests", type=int, default=200, help="requests of each half of a round (default 200)")
    parser.add_argument("--clients", type=int, default=4, help="clients at once in the second half (default 4)")
    parser.add_argument("--promotions", type=int, default=6, help="promotions at the end (default 6)")
    run_command(parser, measure, render)


def measure(folder: Path, args: argparse.Namespace) -> Result:
    with ExitStack() as exits:
        stacks = {
            name: exits.enter_context(with_two_versions(folder / name, args.runtime, name, settings))
            for name, settings in SERVICES.items()
        }
        change(stacks["challenger"], "challenger", "PUT", {"version": 2, "reason": "the benchmark"})
        for stack in stacks.values():
            latencies(stack, WARM)
        wait_for_backlog(stacks["challenger"])
        before = {name: processor_seconds(stack) for name, stack in stacks.items()}
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in stacks}
        for place in range(args.rounds):
            order = list(stacks)
            turn = place % len(order)
            for name in [*order[turn:], *order[:turn]]:
                rounds[name].append(one_round(stacks[name], args))
                if name == "challenger":
                    wait_for_backlog(stacks[name])
        count = args.rounds * args.requests * 2
        spent = {name: (processor_seconds(stack) - before[name]) / count * 1e6 for name, stack in stacks.items()}
        shadow = shadow_of(stacks["challenger"])
        promotions = [promote(stacks["plain"], 2 - place % 2, args.clients) for place in range(args.promotions)]
    about = {name: getattr(args, name) for name in ("runtime", "rounds", "requests", "clients")}
    return {
        **about,
        "medians": {
            name: {figure: statistics.median(each[figure] for each in rounds[name]) for figure in FIGURES}
            for name in stacks
        },
        "ratios": {
            one: {"beside": other, **{figure: compare(rounds[one], rounds[other], figure) for figure in FIGURES}}
            for one, other in PAIRS
        },
        "processor_us": spent,
        "shadow": {name: shadow[name] for name in ("scored", "skipped", "refused")},
        "promotions": promotions,
        "machine": describe(folder),
    }


def compare(on: list[dict[str, float]], off: list[dict[str, float]], figure: str) -> Result:
    """Compare a figure in neighbouring rounds."""
    ratios = sorted(one[figure] / other[figure] for one, other in zip(on, off, strict=True))
    return {
        "ratio": statistics.median(ratios),
        "quartiles": [ratios[len(ratios) // 4], ratios[len(ratios) * 3 // 4]],
    }


@contextmanager
def with_two_versions(folder: Path, runtime: str, name: str, settings: dict[str, str]) -> Iterator[Stack]:
    """Yield a running service whose model has a second version: the same pipeline with another card."""
    with running(folder, runtime, name, settings) as stack:
        package = folder / "models" / MODEL / "1"
        card = json.loads((package / "model.json").read_text())
        other = folder / "second"
        other.mkdir()
        (other / "model.json").write_text(json.dumps(card | {"description": "The second version."}))
        words = ["add", str(package / "model.joblib"), "--card", str(other / "model.json")]
        words += ["--reference", str(package / "reference.jsonl")]
        command = [sys.executable, "-m", "shared.registry", *words]
        subprocess.run(command, cwd=ROOT, env=stack.env, check=True, stdout=subprocess.DEVNULL)
        yield stack
        shutil.rmtree(other)


def one_round(stack: Stack, args: argparse.Namespace) -> dict[str, float]:
    """Return the latency of one client in ms, and the requests per second of several."""
    seconds = sorted(latencies(stack, args.requests))
    began = time.perf_counter()
    with ThreadPoolExecutor(args.clients) as pool:
        done = sum(pool.map(lambda _: len(latencies(stack, args.requests // args.clients)), range(args.clients)))
    per_second = done / (time.perf_counter() - began)
    places = (0.5, 0.95)
    p50, p95 = (seconds[min(len(seconds) - 1, int(len(seconds) * place))] * 1e3 for place in places)
    return {"p50_ms": p50, "p95_ms": p95, "per_second": per_second}


def latencies(stack: Stack, count: int) -> list[float]:
    """Return the seconds of so many requests, one after the other."""
    client = http.client.HTTPConnection("127.0.0.1", stack.port)
    body, seconds = BODY.read_bytes(), []
    for _ in range(count):
        began = time.perf_counter()
        client.request("POST", f"/models/{MODEL}/predict", body, {"Content-Type": "application/json"})
        answer = client.getresponse()
        answer.read()
        seconds.append(time.perf_counter() - began)
        if answer.status != 200:
            raise RuntimeError(f"/predict was answered with {answer.status}")
    client.close()
    return seconds


def wait_for_backlog(stack: Stack) -> None:
    """Return when the challenger has scored, or left out, all that was decided since it began."""
    wait_until(lambda: shadow_of(stack) is not None, "the challenger does not begin")
    last = -1

    def is_done() -> bool:
        nonlocal last
        shadow = shadow_of(stack)
        count = shadow["scored"] + shadow["skipped"]
        is_still, last = count == last and shadow["lag_seconds"] == 0 and count > 0, count
        return is_still

    wait_until(is_done, "the challenger does not keep up", pause=2.5)


def wait_until(look: Callable[[], bool], message: str, *, pause: float = 0.2) -> None:
    deadline = time.monotonic() + BACKLOG_SECONDS
    while not look():
        if time.monotonic() > deadline:
            raise RuntimeError(message)
        time.sleep(pause)


def shadow_of(stack: Stack) -> Any:
    return change(stack, "challenger", "GET", None)["shadow"]


def change(stack: Stack, alias: str, method: str, body: dict[str, Any] | None) -> dict[str, Any]:
    """Read or move an alias of the model; return it."""
    client = http.client.HTTPConnection("127.0.0.1", stack.port)
    content = None if body is None else json.dumps(body)
    client.request(method, f"/models/{MODEL}/aliases/{alias}", content, {"Content-Type": "application/json"})
    answer = client.getresponse()
    state: dict[str, Any] = json.loads(answer.read())
    client.close()
    if answer.status != 200:
        raise RuntimeError(f"the alias was answered with {answer.status}: {state}")
    return state


def promote(stack: Stack, version: int, clients: int) -> dict[str, float]:
    """Promote a version while clients ask; return when its first answer and the last one of the other came, in s."""
    is_over = threading.Event()

    def ask(_: int) -> list[tuple[float, int]]:
        client = http.client.HTTPConnection("127.0.0.1", stack.port)
        body, places = BODY.read_bytes(), list[tuple[float, str]]()
        while not is_over.is_set():
            client.request("POST", f"/models/{MODEL}/predict", body, {"Content-Type": "application/json"})
            answer = client.getresponse()
            answer.read()
            if answer.status != 200:
                raise RuntimeError(f"/predict was answered with {answer.status} during a promotion")
            places.append((time.perf_counter(), answer.headers["Content-Location"]))
        answers = []
        for at, place in places:  # the answer of this model says no version, its job does
            client.request("GET", place)
            answers.append((at, json.loads(client.getresponse().read())["model_version"]))
        client.close()
        return answers

    with ThreadPoolExecutor(clients) as pool:
        asking = [pool.submit(ask, place) for place in range(clients)]
        try:
            time.sleep(0.5)
            began = time.perf_counter()
            change(stack, "champion", "PUT", {"version": version, "reason": "the benchmark"})
            time.sleep(PROMOTION_SECONDS)
        finally:
            is_over.set()
        answers = [answer for one in asking for answer in one.result()]
    of_new = [at for at, scored_by in answers if at > began and scored_by == version]
    of_old = [at for at, scored_by in answers if at > began and scored_by != version]
    if not of_new:
        raise RuntimeError(f"no answer of version {version} came within {PROMOTION_SECONDS:g} s of its promotion")
    return {"first_new": min(of_new) - began, "last_old": max(of_old, default=began) - began}


def render(result: Result) -> str:
    """Return the report as text."""
    lines = [
        f"{result['runtime']} runtime, {result['rounds']} rounds of twice {result['requests']} requests in turn, "
        f"the second half by {result['clients']} clients:"
    ]
    for one, compared in result["ratios"].items():
        other = compared["beside"]
        for figure in FIGURES:
            low, high = compared[figure]["quartiles"]
            with_it, without = (result["medians"][name][figure] for name in (one, other))
            lines.append(
                f"{figure}: {with_it:.2f} {one}, {without:.2f} {other}; "
                f"of neighbouring rounds {compared[figure]['ratio']:.3f} (quartiles {low:.3f} to {high:.3f})."
            )
        spent = result["processor_us"]
        lines.append(
            f"Processor time a request: {spent[one]:.0f} us {one}, {spent[other]:.0f} us {other}: "
            f"ratio {spent[one] / spent[other]:.3f}."
        )
    shadow = result["shadow"]
    lines.append(f"The challenger scored {shadow['scored']} rows and left {shadow['skipped']} out.")
    if promotions := result["promotions"]:
        lines.append(
            f"{len(promotions)} promotions while {result['clients']} clients asked, every request answered: the first "
            f"answer of the new version after {seconds(promotions, 'first_new')}, the last of the old one after "
            f"{seconds(promotions, 'last_old')} (medians and worst)."
        )
    return "\n".join([*lines, json.dumps(result["machine"])])


def seconds(promotions: list[dict[str, float]], figure: str) -> str:
    """Return the median and the worst of a figure as text."""
    times = [each[figure] for each in promotions]
    return f"{statistics.median(times):.2f} s, {max(times):.2f} s"


if __name__ == "__main__":
    main()

"""`make bench-shadow`: requests to a model with a challenger, beside the same service without one.

Two services of one runtime side by side, each with a database of its own and two versions of one model; in the first
the second version is the challenger. Each is asked in turn, first by one client (latency), then by several at once
(throughput), so that both meet the same weather; after a round with a challenger its backlog is awaited, so that no
round pays for another's. Compared are neighbouring rounds, and the processor time of all processes of each service over
the whole run, which holds what is done beside the requests, too.
"""

import argparse
import http.client
import json
import shutil
import statistics
import subprocess
import sys
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
FIGURES = ("p50_ms", "p95_ms", "per_second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", choices=["queue", "sync"], default="queue")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of each, in turn (default 20)")
    parser.add_argument("--requests", type=int, default=200, help="requests of each half of a round (default 200)")
    parser.add_argument("--clients", type=int, default=4, help="clients at once in the second half (default 4)")
    run_command(parser, measure, render)


def measure(folder: Path, args: argparse.Namespace) -> Result:
    with ExitStack() as exits:
        stacks = {
            name: exits.enter_context(with_two_versions(folder / name, args.runtime, name)) for name in ("on", "off")
        }
        change(stacks["on"], "PUT", {"version": 2, "reason": "the benchmark"})
        for stack in stacks.values():
            latencies(stack, WARM)
        wait_for_backlog(stacks["on"])
        before = {name: processor_seconds(stack) for name, stack in stacks.items()}
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in stacks}
        for place in range(args.rounds):
            for name in sorted(stacks, reverse=bool(place % 2)):
                rounds[name].append(one_round(stacks[name], args))
                if name == "on":
                    wait_for_backlog(stacks[name])
        count = args.rounds * args.requests * 2
        spent = {name: (processor_seconds(stack) - before[name]) / count * 1e6 for name, stack in stacks.items()}
        shadow = shadow_of(stacks["on"])
    figures: Result = {}
    for figure in FIGURES:
        on, off = ([each[figure] for each in rounds[name]] for name in ("on", "off"))
        ratios = sorted(one / other for one, other in zip(on, off, strict=True))
        figures[figure] = {
            "on": statistics.median(on),
            "off": statistics.median(off),
            "ratio": statistics.median(ratios),
            "quartiles": [ratios[len(ratios) // 4], ratios[len(ratios) * 3 // 4]],
        }
    about = {name: getattr(args, name) for name in ("runtime", "rounds", "requests", "clients")}
    return {
        **about,
        "figures": figures,
        "processor_us": spent,
        "shadow": {name: shadow[name] for name in ("scored", "skipped", "refused")},
        "machine": describe(folder),
    }


@contextmanager
def with_two_versions(folder: Path, runtime: str, name: str) -> Iterator[Stack]:
    """Yield a running service whose model has a second version: the same pipeline with another card."""
    with running(folder, runtime, name, {}) as stack:
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
    return change(stack, "GET", None)["shadow"]


def change(stack: Stack, method: str, body: dict[str, Any] | None) -> dict[str, Any]:
    """Read or move the alias of the challenger; return it."""
    client = http.client.HTTPConnection("127.0.0.1", stack.port)
    content = None if body is None else json.dumps(body)
    client.request(method, f"/models/{MODEL}/aliases/challenger", content, {"Content-Type": "application/json"})
    answer = client.getresponse()
    alias: dict[str, Any] = json.loads(answer.read())
    client.close()
    if answer.status != 200:
        raise RuntimeError(f"the alias was answered with {answer.status}: {alias}")
    return alias


def render(result: Result) -> str:
    """Return the report as text."""
    lines = [
        f"{result['runtime']} runtime, {result['rounds']} rounds of twice {result['requests']} requests in turn, "
        f"the second half by {result['clients']} clients:"
    ]
    for figure, each in result["figures"].items():
        low, high = each["quartiles"]
        lines.append(
            f"{figure}: {each['on']:.2f} with a challenger, {each['off']:.2f} without; of neighbouring rounds "
            f"{each['ratio']:.3f} (quartiles {low:.3f} to {high:.3f})."
        )
    spent, shadow = result["processor_us"], result["shadow"]
    lines.append(
        f"Processor time a request: {spent['on']:.0f} us with, {spent['off']:.0f} us without. The challenger scored "
        f"{shadow['scored']} rows and left {shadow['skipped']} out."
    )
    return "\n".join([*lines, json.dumps(result["machine"])])


if __name__ == "__main__":
    main()

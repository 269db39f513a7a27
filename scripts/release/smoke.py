"""`python -m scripts.release.smoke URL`: check a deployed service as its callers use it; exit code 0 or 1.

It predicts one row of the attrition example, and changes nothing. API_KEY in the environment is sent where a service
lets nobody in without; `--version` is the one that must run.
"""

import argparse
import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scripts.checkout import ROOT, Failure

_ROWS = ROOT / "examples" / "attrition" / "rows.json"
_REFUSED = (401, 403)


@dataclass(frozen=True, slots=True)
class Service:
    """A service at an address, and the key that it wants, if any."""

    url: str
    key: str = ""

    def ask(self, path: str, *, body: object = None, method: str | None = None, key: bool = True) -> tuple[int, Any]:
        """Return status and JSON of the answer; status 0 means no answer."""
        headers = {"Accept": "application/vnd.guichet+json, application/json", "Content-Type": "application/json"}
        if key and self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)  # noqa: S310 - checked in main
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - the same
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                text = error.read()
            try:
                return error.code, json.loads(text)
            except ValueError:
                return error.code, {}
        except (OSError, ValueError, http.client.HTTPException):
            return 0, {}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every check; print each result as a line."""
    parser = argparse.ArgumentParser(prog="python -m scripts.release.smoke", description="Try out a deployed service.")
    parser.add_argument("url", help="its address, e.g. https://owner-name.hf.space")
    parser.add_argument("--version", default="", help="the version that must run")
    parser.add_argument("--wait", type=float, default=60, metavar="SECONDS", help="how long it may take to be ready")
    options = parser.parse_args(arguments)
    if not options.url.startswith(("https://", "http://")):
        parser.error("the address begins with https:// or http://")
    service = Service(options.url.rstrip("/"), os.environ.get("API_KEY", ""))
    try:
        for what, detail in checks(service, version=options.version, wait=options.wait):
            print(f"ok    {what}: {detail}")
    except Failure as problem:
        print(f"FAIL  {problem}", file=sys.stderr)
        return 1
    except (KeyError, TypeError) as error:
        print(
            f"FAIL  {service.url} does not answer as a Guichet does ({error!r}): is that its address?", file=sys.stderr
        )
        return 1
    return 0


def checks(service: Service, *, version: str, wait: float) -> list[tuple[str, str]]:
    """Return the checks and their results. Raises Failure at the first failed check."""
    done = [("ready", f"after {_until_ready(service, wait):.1f} s")]
    _, health = _expect(service, "/health", 200)
    if health.get("status") == "down" or not health.get("model_loaded"):
        raise Failure(f"/health says {health.get('status')}: {' '.join(health.get('reasons', []))}")
    done.append(("health", f"{health['status']}, {health['model']}@{health['model_version']}"))
    _, body = _expect(service, "/version", 200)
    if version and body.get("version") != version:
        raise Failure(f"version {body.get('version')} runs, and {version} was deployed")
    done.append(("version", str(body.get("version"))))
    row = json.loads(_ROWS.read_text(encoding="utf-8"))[0]
    began = time.monotonic()
    _, result = _expect(service, "/models/attrition/predict", 200, body={"features": row})
    done.append(("predict", f"{result['label']}, {result['probability']:.3f}, {time.monotonic() - began:.2f} s"))
    _, job = _expect(service, f"/jobs/{result['job_id']}", 200)
    if job.get("status") != "succeeded":
        raise Failure(f"the job of that prediction is {job.get('status')}, and not succeeded")
    done.append(("job", f"{job['id']} is kept"))
    _expect(service, "/models/attrition/predict", 422, body={"features": {}})
    done.append(("refusal", "a row without features is refused with 422"))
    nobody = f"/jobs/{uuid.uuid4()}"
    for path, method in ((f"{nobody}/cancel", "POST"), (f"{nobody}/retry", "POST"), ("/jobs", "GET")):
        _expect(service, path, *_REFUSED, method=method, key=False)
    done.append(("locked", "listing, canceling and retrying need a key"))
    return done


def _until_ready(service: Service, wait: float) -> float:
    began = time.monotonic()
    while (status := service.ask("/readyz")[0]) != 200:
        if time.monotonic() - began > wait:
            raise Failure(f"{service.url}/readyz is not 200 after {wait:g} s: {status or 'no answer in JSON'}")
        time.sleep(0.2)
    return time.monotonic() - began


def _expect(
    service: Service, path: str, *statuses: int, body: object = None, method: str | None = None, key: bool = True
) -> tuple[int, dict[str, Any]]:
    status, content = service.ask(path, body=body, method=method, key=key)
    if status not in statuses or not isinstance(content, dict):
        detail = content.get("detail", "") if isinstance(content, dict) else ""
        expected = " or ".join(map(str, statuses))
        raise Failure(
            f"{method or ('GET' if body is None else 'POST')} {path}: {status} instead of {expected}. {detail}"
        )
    return status, content


if __name__ == "__main__":
    sys.exit(main())

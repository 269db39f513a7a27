"""A CSV file that the stack scores while things break."""

import csv
import http.client
import io
import itertools
import json
import time
import uuid

from compose.stack import ROOT, Broken, wait_until
from compose.traffic import Client


def make_csv(rows: int) -> bytes:
    """Return a file of so many rows of the example model energy."""
    examples = json.loads((ROOT / "examples" / "energy" / "rows.json").read_text(encoding="utf-8"))
    text = io.StringIO()
    writer = csv.DictWriter(text, ["id", *examples[0]])
    writer.writeheader()
    writer.writerows({"id": number} | row for number, row in zip(range(rows), itertools.cycle(examples), strict=False))
    return text.getvalue().encode()


def submit_csv(client: Client, content: bytes) -> str:
    """Submit the file and return its job."""
    headers = {"Content-Type": "text/csv", "Idempotency-Key": str(uuid.uuid4())}
    status, answer = client.ask("POST", "/predict_csv?model=energy", content, headers)
    if status != 202:
        raise Broken(f"the file was answered {status}: {answer[:500]!r}")
    return str(json.loads(answer)["id"])


def check_csv(client: Client, job: str, rows: int, *, seconds: float) -> int:
    """Wait for the file, and check that every row of it was scored once; return how many were."""

    def is_done() -> bool:
        try:
            _, found = client.json("GET", f"/jobs/{job}")
        except (OSError, http.client.HTTPException):
            return False
        if found.get("status") in ("failed", "canceled", "expired"):
            raise Broken(f"the file's job is {found['status']}: {found.get('error')}")
        return bool(found.get("status") == "succeeded" and found["counts"]["succeeded"] == rows)

    wait_until(is_done, f"the {rows} rows of the file", seconds)
    for _ in range(5):
        status, output = client.ask("GET", f"/jobs/{job}/output.csv")
        if status == 200:
            break
        time.sleep(1)
    lines = list(csv.DictReader(io.StringIO(output.decode())))
    if [int(line["row_no"]) for line in lines] != list(range(1, rows + 1)):
        raise Broken(f"the output of the file has {len(lines)} rows, not each of {rows} once and in order")
    if [int(line["id"]) for line in lines] != list(range(rows)) or not all(line["prediction"] for line in lines):
        raise Broken("a row of the file's output has no prediction, or another one's id")
    return len(lines)

"""A CSV file that the stack scores during the drills."""

import csv
import http.client
import io
import itertools
import json
import uuid

from scripts.checkout import ROOT
from scripts.drills.stack import Broken
from scripts.drills.traffic import Client


def make_csv(rows: int) -> bytes:
    """Return a file with this number of rows for the example model energy."""
    examples = json.loads((ROOT / "examples" / "energy" / "rows.json").read_text(encoding="utf-8"))
    text = io.StringIO()
    writer = csv.DictWriter(text, ["id", *examples[0]])
    writer.writeheader()
    writer.writerows({"id": number} | row for number, row in zip(range(rows), itertools.cycle(examples), strict=False))
    return text.getvalue().encode()


def submit_csv(client: Client, content: bytes) -> str:
    """Submit the file and return its job; a client that cannot connect tries its other address."""
    headers = {"Content-Type": "text/csv", "Idempotency-Key": str(uuid.uuid4())}
    try:
        status, answer = client.ask("POST", "/predict_csv?model=energy", content, headers)
    except (OSError, http.client.HTTPException):
        status, answer = client.ask("POST", "/predict_csv?model=energy", content, headers)
    if status != 202:
        raise Broken(f"the file was answered {status}: {answer[:500]!r}")
    return str(json.loads(answer)["id"])


def check_csv(client: Client, job: str, rows: int) -> None:
    """Check that every row of a file that succeeded was scored once, by its output. Raises Broken."""
    try:
        status, output = client.ask("GET", f"/jobs/{job}/output.csv")
    except (OSError, http.client.HTTPException):
        status, output = client.ask("GET", f"/jobs/{job}/output.csv")
    lines = list(csv.DictReader(io.StringIO(output.decode())))
    if status != 200 or [line.get("row_no") for line in lines] != [str(number + 1) for number in range(rows)]:
        raise Broken(f"the output of file {job} (status {status}) has not each of its {rows} rows once and in order")
    if [line["id"] for line in lines] != [str(number) for number in range(rows)]:
        raise Broken(f"the output of file {job} has rows with another one's id")
    if not all(line["prediction"] for line in lines):
        raise Broken(f"the output of file {job} has rows without a prediction")

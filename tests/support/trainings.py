"""Rows to train on, made up: numbers, texts, gaps and a target that follows from them."""

import csv
import io
import random
from typing import Any

TARGET = "left"


def make_rows(count: int = 200, *, seed: int = 7, target: str = TARGET) -> list[dict[str, Any]]:
    """Return rows with four features of each type; about a third of them have left."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        age, pay = rng.randint(20, 60), round(rng.gauss(50, 12), 1)
        team, remote = rng.choice(["north", "south", "west"]), rng.random() < 0.4
        lean = 0.08 * (40 - age) - 0.05 * (pay - 50) + {"north": 0.9, "south": 0.0, "west": -0.7}[team] - 0.8
        gap = rng.random() < 0.1
        rows.append(
            {
                "age": age,
                "pay": None if gap else pay,
                "team": team,
                "remote": remote,
                target: "yes" if rng.gauss(0, 1) < lean else "no",
            }
        )
    return rows


def csv_of(rows: list[dict[str, Any]]) -> bytes:
    """Return rows as a CSV file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()

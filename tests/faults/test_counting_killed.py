"""Processes that count scored rows are killed in the middle: every row is counted once, in its hour and its day."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from scripts.servers.postgres import Postgres
from shared.jobs.recording import insert_finished
from shared.monitoring.drift.windows import Window, find_profile, sum_counts
from shared.monitoring.settled import settled_id
from tests.shared.monitoring.test_counting import CARD, CHAMPION, NOON, rows, score
from tests.support.databases import postgres_engine, submission
from tests.support.stack import ROOT

ROWS = 30_000
KILLS = 20
# Says when it is about to begin, so that it is killed while it counts, and not while it starts.
COUNTER = """
import sys
from pathlib import Path
from shared.database.engine import make_engine
from shared.monitoring.counting import Counting
from shared.scoring.outputs import Output
counting = Counting(make_engine(sys.argv[1]), Path(sys.argv[2]), None,
    lambda _, rows: [Output("binary", 1.0, "leaves", 0.75) for _ in rows])
print("ready", flush=True)
counting.run(seconds=600)
"""


@pytest.mark.long
def test_counters_that_are_killed_count_every_row_once(session_postgres: Postgres, tmp_path: Path) -> None:
    chance = random.Random(8)
    with postgres_engine(session_postgres, "counting-killed", autocommit=False) as engine:
        (tmp_path / "m" / "1").mkdir(parents=True)
        (tmp_path / "m" / "1" / "reference.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(300)))
        with engine.begin() as connection:
            connection.execute(text("UPDATE model_versions SET card = :card WHERE id = 1"), {"card": json.dumps(CARD)})
            connection.execute(text(CHAMPION))
        stored = rows(ROWS)
        for first in range(0, ROWS, 5000):
            piece = stored[first : first + 5000]
            with engine.begin() as connection:
                results = [[score(row) for row in piece]]
                insert_finished(connection, [submission(rows=piece)], results, attempts=[1], started_at=NOON)
        with engine.begin() as connection:
            connection.execute(
                text("UPDATE model_outputs SET created_at = :noon + (id % 50) * interval '1 hour'"), {"noon": NOON}
            )
        url = engine.url.render_as_string(hide_password=False)
        kills = 0
        while kills < KILLS:
            child = subprocess.Popen(
                [sys.executable, "-c", COUNTER, url, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, env=os.environ
            )
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            time.sleep(chance.random() * 0.25)
            child.send_signal(signal.SIGKILL)
            kills += child.wait() == -signal.SIGKILL
            child.stdout.close()
        subprocess.run([sys.executable, "-c", COUNTER, url, str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
        with engine.connect() as connection:
            profile = find_profile(connection, 1)
            assert profile is not None
            assert profile.counted_through == settled_id(engine)
            for window, expected in (
                (Window(NOON, NOON + timedelta(hours=60)), stored),
                (Window(NOON + timedelta(hours=1), NOON + timedelta(hours=2)), stored[0::50]),
            ):
                count, counts = sum_counts(connection, 1, [window])
                assert count == len(expected)
                scores = [{"score": score(row).probability, "decision": score(row).label} for row in expected]
                assert counts == profile.profile.count(expected, scores)

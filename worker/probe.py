"""`python -m worker.probe`: check that a worker of this container has a recent heartbeat, for the image's HEALTHCHECK.

Celery's own ping answers while a worker is deaf; a row in the table of workers is written by the process that scores,
once its models are loaded, and again with every heartbeat.
"""

import socket
import sys
from collections.abc import Sequence

from sqlalchemy import func, select, text
from sqlalchemy.exc import SQLAlchemyError

from shared.config.settings import get_settings
from shared.database.engine import session_scope
from shared.startup.container import end_after, note
from shared.tables import Worker


def main(arguments: Sequence[str] = ()) -> int:
    """Look for a recent heartbeat; return 0, or 1 without one.

    `--end-after N`: after N checks in a row that find none, though the database answers, the worker is ended.
    """
    limit = end_after(arguments)
    oldest = func.now() - text("make_interval(secs => :seconds)").bindparams(seconds=get_settings().lease_seconds)
    seen = select(Worker.id).where(Worker.id.startswith(f"{socket.gethostname()}:"), Worker.seen_at > oldest)
    try:
        with session_scope(read_only=True) as session:
            if session.scalar(seen.limit(1)) is not None:
                note(True, limit)
                return 0
    except SQLAlchemyError as error:
        print(f"the database does not answer: {type(error).__name__}")
        return 1
    print("no worker process of this container was heard of lately")
    note(False, limit)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Marks of loads that crashed their process: the next process skips such a model for a while.

A model may need more memory than there is, hang, or hold a library that crashes. Its worker's next process would load
it again, and so on, and no other model would be served. A mark in the folder for temporary files says what is being
loaded; one whose process has gone is a load that did not end.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shared.errors import ArtefactError

AGAIN_SECONDS = 600.0  # after which a model is tried once more
SLOW = "slow"  # end of a mark: the process ended itself, because others waited


@contextmanager
def marked(model_version_id: int, *, patient: bool) -> Iterator[Callable[[], None]]:
    """Mark a model version as being loaded while the block runs; yield what notes that it was merely too slow.

    Raises ArtefactError instead where a process of this worker went down in it within the last ten minutes. A load that
    may take long (`patient`) is tried at once where the last one was merely too slow.
    """
    folder = Path(tempfile.gettempdir()) / f"guichet-loading-{os.getuid()}-{os.getppid()}"
    age = _age_of_lost_load(folder, model_version_id, patient=patient)
    if age is not None:
        raise ArtefactError(
            f"A process of this worker did not survive loading this model, {age:.0f} s ago: it took too long, too much "
            f"memory, or crashed. It is tried again in {max(AGAIN_SECONDS - age, 0):.0f} s at the latest."
        )
    mark = folder / f"{model_version_id}-{os.getpid()}"
    with suppress(OSError):  # where no file can be written, it is loaded without a mark
        folder.mkdir(mode=0o700, exist_ok=True)
        mark.touch(mode=0o600)

    def note_slow() -> None:
        with suppress(OSError):
            mark.rename(f"{mark}-{SLOW}")

    try:
        yield note_slow
    finally:
        with suppress(OSError):
            mark.unlink(missing_ok=True)


def _age_of_lost_load(folder: Path, model_version_id: int, *, patient: bool) -> float | None:
    """Return the age in seconds of the latest load that did not end, None without one; forget old ones."""
    latest: float | None = None
    with suppress(OSError):
        if folder.stat().st_uid != os.getuid():
            return None  # somebody else's, who has no say in what is loaded here
        for mark in folder.glob(f"{model_version_id}-*"):
            _, pid, *kind = mark.name.split("-")
            age = time.time() - mark.stat().st_mtime
            if _lives(int(pid)):
                continue
            if not 0 <= age < AGAIN_SECONDS:
                mark.unlink(missing_ok=True)
            elif not (patient and kind == [SLOW]):
                latest = age if latest is None else min(latest, age)
    return latest


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

"""Marks of loads that crashed their process: the next process skips such a model for a while.

A model may need more memory than there is, hang, or hold a library that crashes. Its worker's next process would load
it again, and so on, and no other model would be served. A mark in the folder for temporary files says what is being
loaded; one whose process has gone is a load that did not end.

Whoever kills a process (an operator, a kernel without memory) may meet it while it loads a model that is well. So the
next process tries again at once, and only the following ones wait, longer each time.

A folder of marks goes with its last mark. What a whole worker that was killed leaves is removed by whoever loads next,
once its marks count no longer: their age decides, since a process of another container may be alive and not be seen.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shared.errors import ArtefactError

PAUSES = (0.0, 10.0, 60.0, 600.0)  # seconds from a lost load to the next one, after one of them, two and so on
FORGOTTEN_SECONDS = 3600.0  # after which a lost load counts no longer: some of the longest pause
SLOW = "slow"  # end of a mark: the process ended itself, because others waited
_MAKE_TRIES = 3  # another process may remove the folder between its making and the mark in it


@contextmanager
def marked(model_version_id: int, *, patient: bool) -> Iterator[Callable[[], None]]:
    """Mark a model version as being loaded while the block runs; yield what notes that it was merely too slow.

    Raises ArtefactError instead where processes of this worker went down in it, and the pause after that is not over. A
    load that was merely too slow is followed by the longest pause; one that may take long (`patient`) is tried at once
    then.
    """
    prefix = f"guichet-loading-{os.getuid()}-"
    folder = Path(tempfile.gettempdir()) / f"{prefix}{os.getppid()}"
    _remove_old_folders(prefix, but=folder)
    ages = _ages_of_lost_loads(folder, model_version_id, patient=patient)
    if ages and (left := PAUSES[min(len(ages), len(PAUSES)) - 1] - min(ages)) > 0:
        raise ArtefactError(
            f"A process of this worker did not survive loading this model, {min(ages):.0f} s ago: it took too long, "
            f"too much memory, or crashed. It is tried again in {left:.0f} s at the latest."
        )
    mark = folder / f"{model_version_id}-{os.getpid()}"
    _make(mark)

    def note_slow() -> None:
        with suppress(OSError):
            mark.rename(f"{mark}-{SLOW}")

    try:
        yield note_slow
        _forget_lost_loads(folder, model_version_id)
    finally:
        with suppress(OSError):
            mark.unlink(missing_ok=True)
            folder.rmdir()  # unless it holds other marks


def _make(mark: Path) -> None:
    """Make a mark and its folder; where no file can be written, the model is loaded without a mark."""
    for _ in range(_MAKE_TRIES):
        with suppress(OSError):
            mark.parent.mkdir(mode=0o700, exist_ok=True)
            mark.touch(mode=0o600)
            return


def _remove_old_folders(prefix: str, *, but: Path) -> None:
    """Remove the folders of other workers in which every mark is so old that it counts for nobody."""
    for folder in but.parent.glob(f"{prefix}*"):
        if folder == but:
            continue
        with suppress(OSError):  # it is another user's, or has just gone
            for mark in folder.iterdir():
                if not 0 <= time.time() - mark.stat().st_mtime < FORGOTTEN_SECONDS:
                    mark.unlink(missing_ok=True)
            folder.rmdir()  # unless it holds younger marks


def _forget_lost_loads(folder: Path, model_version_id: int) -> None:
    """Forget the loads that did not end, now that one has; what was too slow may be so again."""
    with suppress(OSError):
        for mark, is_slow in _lost_loads(folder, model_version_id):
            if not is_slow:
                mark.unlink(missing_ok=True)


def _ages_of_lost_loads(folder: Path, model_version_id: int, *, patient: bool) -> list[float]:
    """Return the age in seconds of each load that did not end, several times where it was too slow. Forget old ones."""
    ages: list[float] = []
    with suppress(OSError):
        if folder.stat().st_uid != os.getuid():
            return []  # somebody else's, who has no say in what is loaded here
        for mark, is_slow in _lost_loads(folder, model_version_id):
            age = time.time() - mark.stat().st_mtime
            if not 0 <= age < FORGOTTEN_SECONDS:
                mark.unlink(missing_ok=True)
            elif not is_slow:
                ages.append(age)
            elif not patient:
                ages += [age] * len(PAUSES)
    return ages


def _lost_loads(folder: Path, model_version_id: int) -> Iterator[tuple[Path, bool]]:
    """Yield the mark of each load whose process has gone, and whether that was merely too slow."""
    for mark in folder.glob(f"{model_version_id}-*"):
        _, pid, *kind = mark.name.split("-")
        if not _lives(int(pid)):
            yield mark, kind == [SLOW]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

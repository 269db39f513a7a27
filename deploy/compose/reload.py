"""`python -m deploy.compose.reload MODULE [ARGUMENT...]`: run a module, and again whenever a source file changes."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

_EVERY = 0.5  # seconds between two looks
_PATIENCE = 20.0  # seconds that the module has to end


def look(folder: Path) -> dict[Path, float]:
    """Return when each Python file below a folder was written."""
    times = {}
    for file in folder.rglob("*.py"):
        try:
            times[file] = file.stat().st_mtime
        except FileNotFoundError:  # an editor replaces files
            continue
    return times


def main(arguments: list[str], folder: Path = Path()) -> int:
    """Run until SIGTERM or SIGINT; a module that ends by itself is started again after the next change."""
    signal.signal(signal.SIGTERM, _leave)
    seen = look(folder)
    running = _start(arguments)
    try:
        while True:
            time.sleep(_EVERY)
            if (now := look(folder)) != seen:
                changed = sorted(str(file) for file, _ in seen.items() ^ now.items())
                print(f"guichet: {changed[0]} changed, starting again", flush=True)
                seen = now
                _end(running)
                running = _start(arguments)
    except KeyboardInterrupt:
        return 0
    finally:
        _end(running)


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _start(arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", *arguments])


def _end(running: subprocess.Popen[bytes]) -> None:
    running.terminate()
    try:
        running.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        running.kill()
        running.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

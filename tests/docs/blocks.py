"""The blocks of a tutorial, and what runs them: one shell and one Python for a page, as a reader would have them."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ADDRESS = "http://127.0.0.1:8000"  # what the pages say; the service under test has another port
_FENCE = re.compile(r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.M | re.S)
_END = "--- end of block "
# Reads a block as one line of JSON, runs it in one namespace for all, and answers with one line of JSON.
_PYTHON = """
import contextlib, io, json, sys, traceback
names = {"__name__": "__main__"}
for line in sys.stdin:
    printed, is_good = io.StringIO(), True
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            exec(compile(json.loads(line), "block", "exec"), names)
        except BaseException:
            traceback.print_exc()
            is_good = False
    print(json.dumps([is_good, printed.getvalue()]), flush=True)
"""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page, with the output that the page shows behind it."""

    language: str
    text: str
    title: str | None  # the file that it is
    line: int
    output: str | None


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page; a `text` block is the output of the one before it."""
    blocks: list[Block] = []
    content = page.read_text(encoding="utf-8")
    for fence in _FENCE.finditer(content):
        line = content.count("\n", 0, fence.start()) + 1
        if fence["language"] == "text":
            last = blocks.pop()
            assert last.output is None, f"{page.name}:{line}: output of nothing"
            blocks.append(Block(last.language, last.text, last.title, last.line, fence["text"]))
        else:
            blocks.append(Block(fence["language"], fence["text"], fence["title"], line, None))
    return blocks


def fits(shown: str, printed: str) -> bool:
    """Tell whether a page shows what was printed; `…` stands for what is another one each time."""
    pattern = ".*?".join(re.escape(part) for part in shown.strip().split("…"))
    return re.fullmatch(pattern, printed.strip(), re.S) is not None


class Reader:
    """Does what a page says: writes its files, types its commands, runs its Python."""

    def __init__(self, folder: Path, env: dict[str, str], url: str) -> None:
        self.folder, self.url = folder, url
        self._shell = self._start(["bash", "--noprofile", "--norc", "-eo", "pipefail"], env)
        self._python = self._start([sys.executable, "-c", _PYTHON], env)

    def close(self) -> None:
        """End the shell and Python."""
        for process in (self._shell, self._python):
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.wait(20)
            process.stdout.close()

    def run(self, block: Block) -> str:
        """Run a block, or write its file; return what it prints. AssertionError when it fails."""
        text = block.text.replace(ADDRESS, self.url)
        if block.title is not None:
            file = self.folder / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            return ""
        is_good, printed = self._run_shell(text) if block.language == "bash" else self._run_python(text)
        assert is_good, f"line {block.line}: {printed}"
        return printed.replace(self.url, ADDRESS)

    def _run_shell(self, text: str) -> tuple[bool, str]:
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{{ {text.rstrip()}\n}} 2>&1 </dev/null\necho; echo '{_END}'$?\n")
        self._shell.stdin.flush()
        lines = []
        for line in self._shell.stdout:
            if line.startswith(_END):
                return line.removeprefix(_END).strip() == "0", "".join(lines)
            lines.append(line)
        raise AssertionError(f"the shell ended: {''.join(lines)}")

    def _run_python(self, text: str) -> tuple[bool, str]:
        assert self._python.stdin is not None
        assert self._python.stdout is not None
        self._python.stdin.write(json.dumps(text) + "\n")
        self._python.stdin.flush()
        is_good, printed = json.loads(self._python.stdout.readline())
        return is_good, printed

    def _start(self, command: list[str], env: dict[str, str]) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            command, cwd=self.folder, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )


@contextmanager
def reader(folder: Path, env: dict[str, str], url: str) -> Iterator[Reader]:
    """Yield a reader in this folder."""
    person = Reader(folder, env, url)
    try:
        yield person
    finally:
        person.close()

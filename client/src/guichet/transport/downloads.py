"""Resumable downloads: a file grows as NAME.part, and is renamed when it is complete."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from guichet.errors import Unusable
from guichet.transport.streams import Stream
from guichet.transport.uploads import OnProgress
from guichet.transport.wire import Answer, Request

_RANGE = re.compile(r"bytes (?:(?P<first>[0-9]+)-[0-9]+|\*)/(?P<total>[0-9]+|\*)")


def check_place(path: str | os.PathLike[str]) -> Path:
    """Return the path of a new file, links followed; raise Unusable for a folder, a device, a pipe."""
    place = Path(path).resolve()
    if place.exists() and not place.is_file():  # to rename something over /dev/null would be a pity
        raise Unusable(f"{path} is not a file: give the name of one.")
    return place


class Download(Stream):
    """One file, also when an earlier process began it. Close it: the part that is on disk stays for the next time."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        place: str,
        params: Mapping[str, str],
        *,
        retries: int,
        on_progress: OnProgress | None = None,
    ) -> None:
        super().__init__(retries, cut_off="The download ends again and again before the file does.")
        self.path = check_place(path)
        self._part = self.path.with_name(self.path.name + ".part")
        # Beside a part lies what it is a part of, so that another process never goes on with another file.
        self._note = self.path.with_name(self.path.name + ".part.etag")
        self._place = place
        self._params = params
        self._on_progress = on_progress
        self._etag = self._read_note()
        self._total: int | None = None
        with self._writing():
            self._file: BinaryIO = self._part.open("ab" if self._etag else "wb")
        self._size = self._furthest = self._file.seek(0, os.SEEK_END)

    def __enter__(self) -> "Download":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if not self._is_ended and not self._etag:
            self._part.unlink(missing_ok=True)  # nobody could go on with it

    def request(self) -> Request:
        """Return the request for the missing bytes."""
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}  # ranges count bytes as they are sent
        if self._size and self._etag:
            headers |= {"Range": f"bytes={self._size}-", "If-Range": self._etag}
        return Request("GET", self._place, self._params, headers)

    def accepts(self, answer: Answer) -> bool:
        """Take the beginning of an answer: the rest of the file, or all of it once more."""
        is_same = answer.headers.get("etag", "") in ("", self._etag)
        match = _RANGE.fullmatch(answer.headers.get("content-range", "").strip())
        if answer.status == 206 and match and match["first"] == str(self._size) and is_same:
            self._total = None if match["total"] == "*" else int(match["total"])
            return True
        if answer.status == 416 and match and match["total"] == str(self._size) and is_same:
            self._end()  # the part was whole already
        elif answer.status in (206, 416):  # of another file, or of other bytes than those asked for
            self._start_again("")
        elif answer.status == 200:
            is_plain = answer.headers.get("content-encoding", "identity") == "identity"
            length = answer.headers.get("content-length") if is_plain else None
            self._total = None if length is None else int(length)
            self._start_again(answer.headers.get("etag", "") if is_plain else "")
            return True
        return False

    def refused(self, answer: Answer) -> None:
        """Handle an answer that was not accepted; after a wrong part, the whole file is requested."""
        if answer.status not in (206, 416):
            super().refused(answer)

    def write(self, piece: bytes) -> None:
        """Add bytes to the part."""
        with self._writing():
            self._file.write(piece)
        self._size += len(piece)
        if self._size > self._furthest:
            self._furthest = self._size
            self._moved()
        if self._on_progress is not None:
            self._on_progress(self._size, self._total)

    def finish(self) -> None:
        """Give the file its name if it is whole."""
        if self._total is None or self._size == self._total:
            self._end()
        elif self._size > self._total:
            self._start_again("")

    def _end(self) -> None:
        with self._writing():
            self._file.close()
            os.replace(self._part, self.path)
            self._note.unlink(missing_ok=True)
        self._is_ended = True

    def _start_again(self, etag: str) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._size = 0
        self._etag = etag if etag.startswith('"') else ""  # a weak one does not promise the same bytes
        if self._etag:
            self._note.write_text(f"{self._what()}\n{self._etag}\n", encoding="utf-8")
        else:
            self._note.unlink(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Unusable(f"{self.path} cannot be written: {error.strerror or error}.") from error

    def _what(self) -> str:
        return self._place + "".join(f" {name}={value}" for name, value in sorted(self._params.items()))

    def _read_note(self) -> str:
        try:
            what, etag = self._note.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            return ""
        return etag if what == self._what() and self._part.exists() else ""

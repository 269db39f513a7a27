"""Forms (RFC 7578), parsed as they arrive: whoever reads one says what becomes of each part."""

import logging
import re
from abc import ABC, abstractmethod

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from shared.errors import InvalidRequest, MalformedBody, UnsupportedMediaType
from shared.faults import Fault

FORM = b"multipart/form-data"
FILENAME_LENGTH = 255
_PLAIN_TRANSFER = (b"", b"binary", b"8bit", b"7bit")

logging.getLogger("python_multipart").setLevel(logging.ERROR)  # its warnings repeat what it found in a form


class FormParser(ABC):
    """The parts of a form, one after the other."""

    def __init__(self, boundary: bytes) -> None:
        self._ended = False
        self._headers: dict[bytes, bytes] = {}
        self._name = self._value = b""
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": self._add_name,
                    "on_header_value": self._add_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._open_part,
                    "on_part_data": self._add_data,
                    "on_end": self._end,
                },
            )
        except FormParserError:
            raise MalformedBody("The form's boundary is too long: it has 70 characters at most.") from None

    def parse(self, data: bytes) -> None:
        """Take the next bytes of the form; raise MalformedBody where they are none."""
        try:
            self._parser.write(data)
        except FormParserError:
            raise MalformedBody("The form is damaged: let your HTTP library write it.") from None

    def check_end(self) -> None:
        """Raise MalformedBody for a form that is cut off."""
        if not self._ended:
            raise MalformedBody("The form is cut off before its end: send it whole.")

    @abstractmethod
    def open_part(self, name: str, filename: bytes | None) -> None:
        """Begin a part; a file has a filename."""

    @abstractmethod
    def add_data(self, data: bytes) -> None:
        """Take bytes of the part that was begun last."""

    # ── what the parser calls ────────────────────────────────────────────────────────────────────────────────────

    def _begin_part(self) -> None:
        self._headers = {}

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._name.lower()] = self._value.strip()
        self._name = self._value = b""

    def _open_part(self) -> None:
        disposition, options = parse_options_header(self._headers.get(b"content-disposition"))
        name = options.get(b"name")
        if disposition != b"form-data" or name is None:
            raise MalformedBody("A part of the form has no name: let your HTTP library write the form.")
        self.open_part(name.decode("utf-8", "replace"), options.get(b"filename"))
        if self._headers.get(b"content-transfer-encoding", b"").lower() not in _PLAIN_TRANSFER:
            raise UnsupportedMediaType(
                "The file in the form is written in base64 or the like: send its bytes as they are."
            )

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self.add_data(data[start:end])

    def _end(self) -> None:
        self._ended = True


def clean_filename(raw: bytes | None) -> str | None:
    """Return the name of a file without folders and without characters that cannot be shown, None if none is left."""
    if raw is None:
        return None
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    name = "".join(character for character in re.split(r"[/\\]", text)[-1] if character.isprintable())
    name = name.strip()[:FILENAME_LENGTH].strip()
    return None if name in ("", ".", "..") else name


def form_error(pointer: str, code: str, message: str) -> InvalidRequest:
    """Return the error of a form, at a field of it."""
    return InvalidRequest(f"The form is not valid: {pointer} {message}.", faults=[Fault(pointer, code, message)])

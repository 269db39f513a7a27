"""Unwrapping of an upload: a plain body, a form (RFC 7578), gzip (RFC 9110, 8.4.1.3), or both."""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers

from shared.csv.gunzip import MAGIC, Gunzip
from shared.errors import InvalidRequest, MalformedBody, TooLarge, UnsupportedMediaType
from shared.faults import Fault, pointer_to_unknown

FORM_BYTES = 1 << 16  # what a form may add to its file
FILENAME_LENGTH = 255

FORM = b"multipart/form-data"
# What browsers, Excel and curl call a CSV file, compressed or not; its content is looked at in any case.
FILES = (
    b"text/csv",
    b"application/csv",
    b"text/tab-separated-values",
    b"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    b"application/vnd.ms-excel",  # what browsers on Windows with Excel call .csv
    b"application/gzip",
    b"application/x-gzip",
    b"application/octet-stream",
    b"",
)
_PLAIN_TRANSFER = (b"", b"binary", b"8bit", b"7bit")

logging.getLogger("python_multipart").setLevel(logging.ERROR)  # its warnings repeat what it found in a form


@dataclass(frozen=True, slots=True)
class UploadHeaders:
    """What the headers of a request say about its body."""

    boundary: bytes | None  # of a form; None: the body is the file itself
    is_compressed: bool  # by Content-Encoding
    charset: str | None  # of text/csv
    filename: str | None


def read_envelope(headers: Headers) -> UploadHeaders:
    """Return the wrapping of a body; raise UnsupportedMediaType with an example of an upload."""
    kind, options = parse_options_header(headers.get("content-type"))
    if kind != FORM and kind not in FILES:
        raise UnsupportedMediaType(
            'Send a CSV file: `curl -F file=@rows.csv URL`, or `curl -H "Content-Type: text/csv" '
            "--data-binary @rows.csv URL`."
        )
    boundary = options.get(b"boundary")
    if kind == FORM and not boundary:
        raise MalformedBody("The form has no boundary: let your HTTP library write its Content-Type header.")
    coding = headers.get("content-encoding", "").strip().lower()
    if coding not in ("", "identity", "gzip", "x-gzip"):
        raise UnsupportedMediaType("The body is compressed in a way that is not read here: use gzip, or send it plain.")
    _, placed = parse_options_header(headers.get("content-disposition"))
    charset = options.get(b"charset")
    return UploadHeaders(
        boundary=boundary if kind == FORM else None,
        is_compressed=coding.endswith("gzip"),
        charset=charset.decode("latin-1") if charset and kind != FORM else None,
        filename=clean_filename(placed.get(b"filename")),
    )


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


class UploadDecoder:
    """Takes the bytes of a body as they come and gives those of the file in it; it holds next to nothing."""

    def __init__(self, envelope: UploadHeaders, *, max_bytes: int) -> None:
        self._gunzip = Gunzip() if envelope.is_compressed else None
        self._form = None if envelope.boundary is None else FormReader(envelope.boundary)
        self._filename = envelope.filename
        self._max_bytes = max_bytes  # of the file
        self._size = 0
        self._begun = False

    @property
    def filename(self) -> str | None:
        """The name of the file at its sender's."""
        return self._filename if self._form is None else self._form.filename

    def unwrap(self, data: bytes) -> Iterator[bytes]:
        """Yield the file's bytes within these bytes."""
        if self._gunzip is None:
            yield from self._open(data)
            return
        if not self._begun and not data.startswith(MAGIC[: len(data)]):
            raise MalformedBody("The body is not gzip, as its Content-Encoding says: compress it, or leave that out.")
        self._begun = True
        for piece in self._gunzip.expand(data):
            yield from self._open(piece)

    def finish(self) -> Iterator[bytes]:
        """Yield the rest; raise MalformedBody for a body that is cut off, InvalidRequest for a form without a file."""
        if self._gunzip is not None:
            yield from self._open(self._gunzip.finish())
        if self._form is not None:
            self._form.finish()

    def _open(self, data: bytes) -> Iterator[bytes]:
        self._size += len(data)
        if self._size > self._max_bytes + FORM_BYTES:
            raise too_large(self._max_bytes)
        if self._form is None:
            yield data
        else:
            yield from self._form.read(data)


class FormReader:
    """Finds the one file in a form as the form arrives."""

    def __init__(self, boundary: bytes) -> None:
        self.filename: str | None = None
        self._has_file = False
        self._ended = False
        self._headers: dict[bytes, bytes] = {}
        self._name = self._value = b""
        self._pieces: list[bytes] = []
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

    def read(self, data: bytes) -> list[bytes]:
        """Return the file's bytes within these bytes of the form."""
        try:
            self._parser.write(data)
        except FormParserError:
            raise MalformedBody("The form is damaged: let your HTTP library write it.") from None
        pieces, self._pieces = self._pieces, []
        return pieces

    def finish(self) -> None:
        """Raise MalformedBody for a form that is cut off, InvalidRequest for one without a file."""
        if not self._ended:
            raise MalformedBody("The form is cut off before its end: send it whole.")
        if not self._has_file:
            raise _form_error("/file", "missing", "is missing: put the CSV file into this field of the form")

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
        name, filename = options.get(b"name"), options.get(b"filename")
        if disposition != b"form-data" or name is None:
            raise MalformedBody("A part of the form has no name: let your HTTP library write the form.")
        pointer = pointer_to_unknown(name.decode("utf-8", "replace"))
        if filename is None and name != b"file":
            raise _form_error(
                pointer, "unknown_field", "is not taken in the form: options go into the query (?delimiter=semicolon)"
            )
        if self._has_file:
            raise _form_error(pointer, "several_files", "is a second file: send each in a request of its own")
        if self._headers.get(b"content-transfer-encoding", b"").lower() not in _PLAIN_TRANSFER:
            raise UnsupportedMediaType(
                "The file in the form is written in base64 or the like: send its bytes as they are."
            )
        self._has_file = True
        self.filename = clean_filename(filename)

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self._pieces.append(data[start:end])

    def _end(self) -> None:
        self._ended = True


def too_large(max_bytes: int) -> TooLarge:
    """Return the error of an upload that is larger than a file may be."""
    return TooLarge(f"The file is larger than {max_bytes} bytes: send it in several files.")


def _form_error(pointer: str, code: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"The form is not valid: {pointer} {message}.", faults=[Fault(pointer, code, message)])

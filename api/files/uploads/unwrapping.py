"""Unwrapping of an upload: a plain body, a form (RFC 7578), gzip (RFC 9110, 8.4.1.3), or both."""

from collections.abc import Iterator
from dataclasses import dataclass

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers

from api.files.uploads.forms import FORM, FormParser, clean_filename, form_error
from shared.csv.format import likely_delimiter
from shared.csv.uploads.gunzip import MAGIC, Gunzip
from shared.errors import MalformedBody, TooLarge, UnsupportedMediaType
from shared.faults import pointer_to_unknown

FORM_BYTES = 1 << 16  # what a form may add to its file

TSV = b"text/tab-separated-values"
# What browsers, Excel and curl call a CSV file, compressed or not; its content is looked at in any case.
FILES = (
    b"text/csv",
    b"application/csv",
    TSV,
    b"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    b"application/vnd.ms-excel",  # what browsers on Windows with Excel call .csv
    b"application/gzip",
    b"application/x-gzip",
    b"application/octet-stream",
    b"",
)


@dataclass(frozen=True, slots=True)
class UploadHeaders:
    """The headers of a request that describe its body."""

    boundary: bytes | None  # of a form; None: the body is the file itself
    is_compressed: bool  # by Content-Encoding
    charset: str | None  # of text/csv
    filename: str | None
    has_tabs: bool = False  # by its media type


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
        raise _without_boundary()
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
        has_tabs=kind == TSV,
    )


def read_form_boundary(headers: Headers) -> bytes:
    """Return the boundary of a form with a model; raise UnsupportedMediaType with an example for another body."""
    kind, options = parse_options_header(headers.get("content-type"))
    if kind != FORM:
        raise UnsupportedMediaType(
            "Send the model as a form: `curl -F artefact=@model.joblib -F reference=@rows.csv -F name=churn URL`."
        )
    if headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
        raise UnsupportedMediaType("The body is compressed, which is not read here: save the model compressed instead.")
    boundary = options.get(b"boundary")
    if not boundary:
        raise _without_boundary()
    return boundary


def _without_boundary() -> MalformedBody:
    return MalformedBody("The form has no boundary: let your HTTP library write its Content-Type header.")


class UploadDecoder:
    """Takes the bytes of a body as they come and gives those of the file in it; it holds next to nothing."""

    def __init__(self, envelope: UploadHeaders, *, max_bytes: int) -> None:
        self._gunzip = Gunzip() if envelope.is_compressed else None
        self._form = None if envelope.boundary is None else FormReader(envelope.boundary)
        self._filename = envelope.filename
        self._has_tabs = envelope.has_tabs
        self._max_bytes = max_bytes  # of the file
        self._size = 0
        self._begun = False

    @property
    def filename(self) -> str | None:
        """The name of the file at its sender's."""
        return self._filename if self._form is None else self._form.filename

    @property
    def likely_delimiter(self) -> str | None:
        """A tab where the media type or the name of the file says so, else None; final with the file's first bytes."""
        return "\t" if self._has_tabs else likely_delimiter(self.filename)

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


class FormReader(FormParser):
    """Finds the one file in a form as the form arrives."""

    def __init__(self, boundary: bytes) -> None:
        super().__init__(boundary)
        self.filename: str | None = None
        self._has_file = False
        self._pieces: list[bytes] = []

    def read(self, data: bytes) -> list[bytes]:
        """Return the file's bytes within these bytes of the form."""
        self.parse(data)
        pieces, self._pieces = self._pieces, []
        return pieces

    def finish(self) -> None:
        """Raise MalformedBody for a form that is cut off, InvalidRequest for one without a file."""
        self.check_end()
        if not self._has_file:
            raise form_error("/file", "missing", "is missing: put the CSV file into this field of the form")

    def open_part(self, name: str, filename: bytes | None) -> None:
        """Begin the file; raise InvalidRequest for anything else."""
        pointer = pointer_to_unknown(name)
        if filename is None and name != "file":
            raise form_error(
                pointer,
                "unknown_field",
                "is not accepted in the form: options go into the query (?delimiter=semicolon)",
            )
        if self._has_file:
            raise form_error(pointer, "several_files", "is a second file: send each in a request of its own")
        self._has_file = True
        self.filename = clean_filename(filename)

    def add_data(self, data: bytes) -> None:
        """Keep bytes of the file."""
        self._pieces.append(data)


def too_large(max_bytes: int) -> TooLarge:
    """Return the error of an upload that is larger than a file may be."""
    return TooLarge(f"The file is larger than {max_bytes} bytes: send it in several files.")

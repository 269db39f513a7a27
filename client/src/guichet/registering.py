"""Adding models by upload, for keys with the scope `admin`: the form, as calls.py sends it, and what comes of it."""

import asyncio
import contextlib
import io
import json
import os
import pickle
import re
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeAlias, TypedDict

from guichet.errors import Unusable
from guichet.records import Body
from guichet.values import Frame, plain_rows

PIECE = 256 * 1024
MOST_ROWS = 10_000  # of a data frame: the service keeps some hundreds of them

File: TypeAlias = str | os.PathLike[str]


class RegisterOptions(TypedDict, total=False):
    """Options of a model, as of `python -m shared.registry add`; options left out are inferred from its files."""

    version: int | None
    target: str | None  # column of the reference rows that is the answer
    task: str | None  # binary, multiclass or regression
    threshold: float | None
    labels: Mapping[str, str] | None  # class -> name
    metrics: Mapping[str, float] | None
    probability: str | None  # sigmoid
    scores: str | None  # column of the reference rows with the model's own scores
    skip_bad: bool | None
    trust: Sequence[str] | None  # types in a skops file
    delimiter: str | None
    encoding: str | None
    decimal: str | None
    thousands: str | None


@dataclass(frozen=True, slots=True)
class Registered:
    """The version that an upload became; all of it is in `body`."""

    model: str
    model_version: int
    sha256: str
    alias: str | None  # champion where it serves at once: a model's first version
    features: list[str]
    left_out: list[str]  # columns of the reference rows that are no features
    card: Body = field(repr=False, compare=False)
    body: Body = field(repr=False, compare=False)

    @classmethod
    def read(cls, body: Body) -> Self:
        """Read it from JSON."""
        return cls(
            model=str(body["model"]),
            model_version=int(body["model_version"]),
            sha256=str(body["model_sha256"]),
            alias=body["alias"],
            features=[str(name) for name in body["features"]],
            left_out=[str(name) for name in body["left_out"]],
            card=dict(body["card"]),
            body=body,
        )


class ModelUpload:
    """A form with files as a request's body. Use it as a context manager: it closes its files."""

    is_repeatable = True

    def __init__(self, fields: Mapping[str, str], files: Mapping[str, tuple[str, BinaryIO]]) -> None:
        # The same bytes at every attempt: an Idempotency-Key goes with one body.
        self._boundary = secrets.token_hex(16)
        self._parts: list[tuple[bytes, BinaryIO]] = [
            (self._head(name), io.BytesIO(text.encode())) for name, text in fields.items()
        ]
        self._parts += [(self._head(name, filename), file) for name, (filename, file) in files.items()]
        self._tail = f"--{self._boundary}--\r\n".encode()
        self._sizes = [file.seek(0, os.SEEK_END) for _, file in self._parts]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        for _, file in self._parts:
            file.close()

    @property
    def headers(self) -> dict[str, str]:
        """What the body is, and how long."""
        size = sum(len(head) + size + 2 for (head, _), size in zip(self._parts, self._sizes, strict=True))
        return {
            "Content-Type": f"multipart/form-data; boundary={self._boundary}",
            "Content-Length": str(size + len(self._tail)),
        }

    def __iter__(self) -> Iterator[bytes]:
        """Read the body from its beginning."""
        for (head, file), size in zip(self._parts, self._sizes, strict=True):
            yield head
            file.seek(0)
            left = size
            while piece := file.read(min(PIECE, left)):
                left -= len(piece)
                yield piece
            if left:
                raise Unusable("A file became shorter while it was sent: send it when it is complete.")
            yield b"\r\n"
        yield self._tail

    async def in_thread(self) -> AsyncIterator[bytes]:
        """Read the same in a thread: disks take their time."""
        pieces = iter(self)
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece

    def _head(self, name: str, filename: str | None = None) -> bytes:
        lines = f'--{self._boundary}\r\nContent-Disposition: form-data; name="{name}"'
        if filename is not None:
            quoted = re.sub(r'["\x00-\x1f]', "_", filename)
            lines += f'; filename="{quoted}"\r\nContent-Type: application/octet-stream'
        return f"{lines}\r\n\r\n".encode(errors="replace")


def open_model(
    model: object, rows: object, answers: object, files: Mapping[str, File | None], options: RegisterOptions, name: str
) -> ModelUpload:
    """Open the files of a model as one form.

    `model` is a path (of a joblib or skops file, of a zip, or of a folder's `model.joblib`), or a fitted estimator,
    which is pickled. `rows` and `answers` are what it was trained on; `files` are the paths of others, by their field.
    """
    fields, rows_file = {"name": name}, None
    if rows is not None:
        if files.get("reference") is not None:
            raise Unusable("Give the rows that it was trained on, or a file of reference rows, not both.")
        rows_file, target = _rows_file(rows, answers, options.get("target"))
        options = {**options, "target": target}
    elif answers is not None:
        raise Unusable("Answers come with their rows: give X and y.")
    for field_name, value in options.items():
        if value is not None and value != []:
            fields[field_name] = _text(value)
    with contextlib.ExitStack() as stack:
        opened: dict[str, tuple[str, BinaryIO]] = {"artefact": _opened_model(model)}
        stack.callback(opened["artefact"][1].close)
        if rows_file is not None:
            opened["reference"] = "rows.json", rows_file
        for field_name, path in files.items():
            if path is not None:
                opened[field_name] = Path(path).name, _open(path)
                stack.callback(opened[field_name][1].close)
        upload = ModelUpload(fields, opened)
        stack.pop_all()
    return upload


def _opened_model(model: object) -> tuple[str, BinaryIO]:
    if isinstance(model, str | os.PathLike):
        return Path(model).name, _open(model)
    try:
        return "model.pkl", io.BytesIO(pickle.dumps(model))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise Unusable(
            f"The model cannot be pickled ({error}): put its own functions and classes into a module, or save it with "
            "cloudpickle and give the path of the file."
        ) from error


def _open(path: File) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        raise Unusable(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return json.dumps({str(key): content for key, content in value.items()}, ensure_ascii=False)
    if isinstance(value, list | tuple) and any(not isinstance(each, str) for each in value):
        return json.dumps(value)
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _rows_file(rows: Any, answers: Any, target: str | None) -> tuple[BinaryIO, str | None]:  # noqa: ANN401
    """Return rows with their answers as a JSON file, and the name of the column that has the answers."""
    count = len(rows)
    step = max(1, -(-count // MOST_ROWS))  # rows that lie evenly: data are often sorted
    if isinstance(rows, Frame):
        frame: Any = rows
        records = plain_rows(frame.iloc[::step] if hasattr(frame, "iloc") else frame[::step])
    elif count and hasattr(rows, "shape"):
        records = plain_rows({f"x{place}": value for place, value in enumerate(row)} for row in rows[::step].tolist())
    else:
        records = plain_rows(list(rows)[::step])
    if answers is not None:
        values = list(answers)
        if len(values) != count:
            raise Unusable(f"There are {count} rows and {len(values)} answers: give one for each.")
        target = target or str(getattr(answers, "name", None) or "target")
        if records and target in records[0]:
            raise Unusable(f"{target!r} is a column of the rows already: name the answers' column with target=.")
        answered = plain_rows({target: value} for value in values[::step])
        records = [row | answer for row, answer in zip(records, answered, strict=True)]
    return io.BytesIO(json.dumps(records, ensure_ascii=False).encode()), target

"""Loading a file of reference data, all or nothing: read, checked row by row against a card, then stored.

No transaction is open while the file is read: its good rows wait in a file without a name.
"""

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Self

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from shared.cards.card import Card
from shared.cards.validator import RowValidator
from shared.csv.chunk_reader import ChunkReader
from shared.csv.format import Chunk, CsvFormat, CsvOptions, Limits, likely_delimiter, normalise_options
from shared.csv.output import passthrough_columns
from shared.csv.packing import pack, unpack
from shared.csv.targets import TargetReader
from shared.csv.uploads.reader import UploadReader
from shared.database.engine import dumps, reader
from shared.errors import InvalidRequest, NotFound, RowFaults, Unavailable
from shared.faults import Fault, few
from shared.files import open_file
from shared.reference.data import StoredSet, find_set, replace_set
from shared.registry.versions import resolve
from shared.tables import ModelVersion

READ_BYTES = 1 << 20
SHOWN = 20  # faults that are told one by one
# A file on disk may be of any size; row numbers are 32-bit, and a longer record has a quote that is never closed.
LIMITS = Limits(max_bytes=2**63 - 1, max_rows=2**31 - 2, max_record_bytes=1_000_000)

StoredRow = tuple[str, str | None]  # JSON text of features and of target


@dataclass(slots=True)
class BadRows:
    """What was wrong with a file's rows: the first faults, and how many there were."""

    shown: list[Fault] = field(default_factory=list)  # pointers like /rows/4/age, rows counted from 1
    fault_count: int = 0
    row_count: int = 0

    def add(self, row_no: int, faults: Sequence[Fault]) -> None:
        """Count one more row with its faults."""
        self.row_count += 1
        self.fault_count += len(faults)
        self.shown += [fault.under(f"/rows/{row_no}") for fault in faults[: SHOWN - len(self.shown)]]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of a file."""

    stored: StoredSet
    unchanged: bool = False  # the very same data were there
    replaced: StoredSet | None = None
    bad: BadRows = field(default_factory=BadRows)
    ignored: list[str] = field(default_factory=list)  # columns that are neither features nor the target
    notices: list[str] = field(default_factory=list)  # what was read otherwise than it is written


def load(
    engine: Engine,
    path: Path,
    *,
    model: str,
    version: int | None = None,
    target: str | None = None,
    csv_options: CsvOptions | None = None,
    skip_bad: bool = False,
) -> Loaded:
    """Make a CSV file the reference data of a model, in place of those that it has.

    Rows are checked against the card of the version, or of the champion. `target` is the column of the true answers;
    the card's own where the file has it. Loading the same file again changes nothing. Raises RowFaults for bad rows,
    unless `skip_bad` leaves them out, and for a header that does not fit; InvalidRequest or NotFound.
    """
    csv_options = normalise_options(csv_options or CsvOptions())
    with Session(reader(engine)) as session:
        chosen = resolve(session, model, version)
        before = find_set(session.connection(), model)
    with _open(path) as file:
        if before is not None and _is_loaded(before, file, chosen, target, csv_options, skip_bad=skip_bad):
            return Loaded(before, unchanged=True)
        file.seek(0)
        card = Card.model_validate(chosen.card | {"sha256": chosen.sha256})
        with ReferenceFile(card, csv_options, target, filename=path.name) as rows:
            rows.read(file)
            _check(card, rows, path.name, skip_bad=skip_bad)
            assert rows.format is not None
            values = {
                "model_name": model,
                "model_version_id": chosen.id,
                "filename": path.name,
                "sha256": rows.sha256,
                "byte_count": rows.byte_count,
                "delimiter": rows.format.delimiter,
                "encoding": rows.format.encoding,
                "decimal": rows.format.decimal,
                "thousands": rows.format.thousands,
                "currency": rows.format.currency,
                "options": _options(csv_options, target),
                "target": rows.target,
                "row_count": rows.row_count,
                "skipped_count": rows.bad.row_count,
            }
            with engine.begin() as connection:
                replace_set(connection, values, rows.pieces())
                stored = find_set(connection, model)
    assert stored is not None
    return Loaded(stored, replaced=before, bad=rows.bad, ignored=rows.ignored, notices=rows.notices)


class ReferenceFile:
    """Reads one file; its good rows wait, compressed, in a file without a name until they are asked for."""

    def __init__(self, card: Card, csv_options: CsvOptions, target: str | None, *, filename: str) -> None:
        self.sha256 = ""
        self.row_count = 0  # good rows
        self.bad = BadRows()
        self.target = target
        self.ignored: list[str] = []
        self._target_name = target
        self._card = card
        answers = [name for name in (target or card.target,) if name is not None and card.task == "regression"]
        self._csv = UploadReader(card, csv_options, LIMITS, answers=answers)
        self._csv.likely_delimiter = likely_delimiter(filename)
        self._reader: ChunkReader | None = None
        self._answers: TargetReader | None = None
        self._place = 0  # of the target among the kept columns
        self._kept = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._sizes: list[int] = []

    def __enter__(self) -> Self:
        """Use it in a `with` statement."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give the disk back."""
        self._kept.close()

    @property
    def format(self) -> CsvFormat | None:
        """Return the format of the file."""
        return self._csv.format

    @property
    def notices(self) -> list[str]:
        """Return notices about cells that were read with another value than their text shows."""
        return self._csv.notices

    @property
    def byte_count(self) -> int:
        """Return the size of the file, uncompressed."""
        return self._csv.byte_count

    def read(self, file: BufferedReader) -> None:
        """Read the file to its end."""
        seen = hashlib.sha256()
        while data := file.read(READ_BYTES):
            seen.update(data)
            for chunk in self._csv.feed(data):
                self._take(chunk)
        for chunk in self._csv.finish():
            self._take(chunk)
        self.sha256 = seen.hexdigest()

    def pieces(self) -> Iterator[list[StoredRow]]:
        """Yield the good rows in their order, some thousand at a time."""
        self._kept.seek(0)
        for size in self._sizes:
            lines = unpack(self._kept.read(size)).decode().split("\n")
            pairs = (line.partition("\t") for line in lines)  # JSON text holds neither tabs nor newlines
            yield [(features, target or None) for features, _, target in pairs]

    def _take(self, chunk: Chunk) -> None:
        if self._reader is None:
            self._reader = self._begin()
        chunk_rows = self._reader.read(chunk.data, first_row=chunk.first_row, row_count=chunk.row_count)
        faults, lines = chunk_rows.faults, chunk_rows.features
        if self._answers is not None:
            answers = [self._answers.read(cell) for cell in chunk_rows.kept[self._place]]
            for place, answer in enumerate(answers):
                # A row that is wrong as a whole, as an empty one is, lacks more than its answer.
                if isinstance(answer, Fault) and all(fault.pointer for fault in faults.get(place, [])):
                    faults.setdefault(place, []).append(answer)
            lines = [f"{line}\t{dumps(answer)}" for line, answer in zip(lines, answers, strict=True)]
        if faults:
            for place in sorted(faults):
                self.bad.add(chunk.first_row + place + 1, faults[place])
            lines = [line for place, line in enumerate(lines) if place not in faults]
        self._keep(lines)

    def _begin(self) -> ChunkReader:
        form = self._csv.format
        assert form is not None
        extra = passthrough_columns(self._card, form)
        if self._target_name is None:
            self.target = self._card.target if self._card.target in extra else None
        elif self._target_name not in extra:
            raise InvalidRequest(_no_target(self._target_name, self._card, extra))
        if self.target is not None:
            self._answers = TargetReader(self._card, self.target, form.numbers)
            self._place = extra.index(self.target)
        self.ignored = [name for name in extra if name != self.target]
        return ChunkReader(self._card, RowValidator(self._card), form)

    def _keep(self, lines: Sequence[str]) -> None:
        if not lines:
            return
        packed = pack("\n".join(lines).encode())
        try:
            self._kept.write(packed)
            self._kept.flush()
        except OSError as error:
            raise Unavailable(
                f"The rows cannot be kept in {tempfile.gettempdir()} ({error.strerror}): make room there, or let "
                "TMPDIR name another folder."
            ) from None
        self._sizes.append(len(packed))
        self.row_count += len(lines)


def _is_loaded(
    before: StoredSet,
    file: BufferedReader,
    chosen: ModelVersion,
    target: str | None,
    csv_options: CsvOptions,
    *,
    skip_bad: bool,
) -> bool:
    """Return whether loading the file with these options would repeat the present data.

    An option is the same where it was given so before, or names what was detected then.
    """
    if before.options is None:
        return False
    options = _options(csv_options, target)
    return (
        chosen.version == before.version
        and all(
            want == before.options.get(name) or (want is not None and want == getattr(before, name))
            for name, want in options.items()
        )
        and (skip_bad or not before.skipped_count)
        and hashlib.file_digest(file, "sha256").hexdigest() == before.sha256
    )


def _options(csv_options: CsvOptions, target: str | None) -> dict[str, str | None]:
    names = ("delimiter", "encoding", "decimal", "thousands")
    return {name: getattr(csv_options, name) for name in names} | {"target": target}


def _check(card: Card, rows: ReferenceFile, filename: str, *, skip_bad: bool) -> None:
    bad, total = rows.bad, rows.row_count + rows.bad.row_count
    if not bad.row_count or (skip_bad and rows.row_count):
        return
    who = f"{bad.row_count:,} of the {total:,} rows" if rows.row_count else f"None of the {total:,} rows"
    negated = "do not fit" if rows.row_count else "fits"
    advice = "correct them, or leave them out with --skip-bad" if rows.row_count else "correct the file"
    raise RowFaults(
        f"{who} of {filename} {negated} the card of {card.name}@{card.version} ({bad.fault_count:,} faults in all), "
        f"and nothing was loaded: {advice}.",
        faults=bad.shown,
    )


def _no_target(target: str, card: Card, extra: Sequence[str]) -> str:
    if any(feature.name == target for feature in card.features):
        return f"{target!r} is a feature of {card.name}, and cannot be the target: name the column of the true answers."
    columns = f"the columns that are no features are {few(extra, 10)}" if extra else "it has features only"
    return f"The file has no column {target[:70]!r} to be the target: {columns}."


def _open(path: Path) -> BufferedReader:
    try:
        return open_file(path)
    except FileNotFoundError:
        raise NotFound(f"There is no file {path}: check the path.") from None
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read ({error.strerror}): check the file and its rights.") from error

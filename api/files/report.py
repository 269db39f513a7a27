"""The report of `/predict_csv?validate_only=true`: every row checked, nothing scored, nothing stored."""

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from api.models.catalog import Version
from shared.csv.format import Chunk, CsvFormat

if TYPE_CHECKING:
    from shared.csv.chunk_reader import ChunkReader

MAX_ERRORS = 1000  # that are listed; all of them are counted


class CsvReport:
    """Counts the faults of a file's rows, chunk by chunk; it keeps only the first errors."""

    def __init__(self, version: Version) -> None:
        self._version = version
        self._reader: ChunkReader | None = None
        self._valid = 0
        self._by_code: Counter[str] = Counter()
        self._errors: list[dict[str, Any]] = []

    def add(self, chunk: Chunk, form: CsvFormat) -> None:
        """Check the rows of one more chunk."""
        if self._reader is None:
            # Imported here: a process that never checks a file does without the library that reads it.
            from shared.csv.chunk_reader import ChunkReader

            self._reader = ChunkReader(self._version.card, self._version.validator, form)
        read = self._reader.read(chunk.data, first_row=chunk.first_row, row_count=chunk.row_count)
        self._valid += len(read.good)
        self._by_code.update(error.code for error in read.errors)
        self._errors += [
            {"row_no": error.row_no, "column": error.column, "code": error.code, "message": error.message}
            for error in read.errors[: MAX_ERRORS - len(self._errors)]
        ]

    def body(
        self, form: CsvFormat, *, notices: list[str], row_count: int, byte_count: int, filename: str | None
    ) -> dict[str, Any]:
        """Return the report on the whole file."""
        card = self._version.card
        features = [feature.name for feature in card.row_features]
        written = asdict(form)
        return {
            "model": card.name,
            "model_version": card.version,
            "rows": row_count,
            "valid": self._valid,
            "invalid": row_count - self._valid,
            "format": {
                "filename": filename,
                **{
                    key: written[key]
                    for key in ("delimiter", "encoding", "decimal", "thousands", "currency", "id_column")
                },
                "bytes": byte_count,
                "notices": notices,
            },
            "columns": {
                "features": [name for name in form.columns if name in features],
                "missing": [feature.name for feature in card.sent_features if feature.name not in form.columns],
                "extra": [name for name in form.columns if name not in features],
            },
            "error_count": self._by_code.total(),
            "errors_by_code": dict(self._by_code.most_common()),
            "errors": self._errors,
        }

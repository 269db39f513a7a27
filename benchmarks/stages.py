"""Where the time of a CSV row goes: each step alone, in one process, on one file.

    python -m benchmarks.stages rows.csv MODELS_DIR

Prints one JSON object of microseconds a row. Storing is not among them: benchmarks/bulk.py reports PostgreSQL's time.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

from shared.cards.card import Card
from shared.cards.validator import RowValidator
from shared.csv.chunk_reader import ChunkReader
from shared.csv.chunk_scoring import score_chunk
from shared.csv.format import Chunk, CsvFormat, CsvOptions, Limits
from shared.csv.packing import pack, unpack
from shared.csv.uploads.reader import UploadReader
from shared.registry.loading import LoadedModel, load
from shared.tables import ModelVersion

ROUNDS = 3  # the fastest one counts: whatever disturbs only adds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("models", type=Path, help="MODELS_DIR with the attrition model")
    args = parser.parse_args()
    model = newest(args.models)
    data = args.file.read_bytes()
    chunks, form = split(model.card, data)
    rows = sum(chunk.row_count for chunk in chunks)
    reader = ChunkReader(model.card, RowValidator(model.card), form)
    packed = [pack(chunk.data) for chunk in chunks]

    def read() -> None:
        for chunk in chunks:
            reader.read(chunk.data, first_row=chunk.first_row)

    columns = [reader.read(chunk.data, first_row=chunk.first_row).columns for chunk in chunks]
    steps: dict[str, Callable[[], object]] = {
        "cut the upload into chunks (API)": lambda: split(model.card, data),
        "compress chunks (API)": lambda: [pack(chunk.data) for chunk in chunks],
        "decompress": lambda: [unpack(payload) for payload in packed],
        "parse, validate, write features as JSON": read,
        "score": lambda: [model.scorer.score_columns(column) for column in columns],
        "all of a chunk, with its output lines": lambda: [
            score_chunk(model, reader, chunk.data, first_row=chunk.first_row) for chunk in chunks
        ],
    }
    print(json.dumps({name: best(step) / rows * 1e6 for name, step in steps.items()}))


def newest(models: Path) -> LoadedModel:
    """Load the attrition model's last version from its folder."""
    folder = max((models / "attrition").glob("*/model.joblib"), key=lambda path: int(path.parent.name)).parent
    card = Card.load(folder / "model.json")
    version = ModelVersion(
        id=1,
        name=card.name,
        version=card.version,
        sha256=card.sha256,
        uri=str(folder.relative_to(models)),
        card=card.model_dump(mode="json"),
        scorer={"kind": "treelite"},
    )
    return load(version, models)


def split(card: Card, data: bytes) -> tuple[list[Chunk], CsvFormat]:
    """Cut a file into its chunks as the API does it."""
    size = len(data) + 1
    file = UploadReader(card, CsvOptions(), Limits(size, size, 1_000_000))
    chunks = [
        chunk for start in range(0, len(data), 256 * 1024) for chunk in file.feed(data[start : start + 256 * 1024])
    ]
    chunks += file.finish()
    assert file.format is not None
    return chunks, file.format


def best(step: Callable[[], object]) -> float:
    """Return the seconds of the fastest round."""
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return min(times)


if __name__ == "__main__":
    main()

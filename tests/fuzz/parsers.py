"""What reads other people's bytes, each with samples that are changed by chance: `python -m tests.fuzz.parsers NAME`.

A parser is tried in this process of its own, because a fault of a library in C ends it. One mutant is made by the name
of its parser and its number alone: `... NAME --first 417 --count 1` makes it again.
"""

import argparse
import csv
import gzip
import hashlib
import io
import json
import logging
import os
import random
import resource
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openpyxl
import yaml
from starlette.datastructures import Headers
from starlette.requests import Request

from api.auth.callers import Caller
from api.files.downloads.outputs import file_name
from api.files.downloads.stream import _headers
from api.files.uploads.unwrapping import UploadDecoder, read_envelope
from api.http.conditional import etag_matches, parse_range, preferred_type, resolve_range
from api.http.prefer import read_preference
from api.http.prefix import Prefix
from api.jobs.json_body import parse_json
from api.jobs.submissions import set_idempotency_key
from api.models.catalog import Version
from api.protocols.mlflow.dataframes import read_json_frame
from api.protocols.open_inference.body import TensorBody
from api.protocols.open_inference.inference import read_inference
from shared.cards.card import Card
from shared.cards.validator import RowValidator
from shared.config.settings import Settings, get_settings
from shared.csv.chunk_reader import ChunkReader
from shared.csv.format import DELIMITERS, ENCODINGS, CsvOptions, Limits
from shared.csv.uploads.reader import UploadReader
from shared.errors import ArtefactError, CardError, GuichetError
from shared.packages import package as packages
from shared.packages.artefacts.joblib_file import check_start
from shared.packages.contract import apply_contract
from shared.packages.mlflow.folder import advice_of, example_of, read_mlflow_folder
from shared.packages.mlflow.signature import read_signature
from shared.packages.package import Package, read_artefact
from shared.packages.sample import canonical_rows, read_rows
from tests.fuzz.forms import try_console_form, try_cookies, try_model_form, try_training
from tests.fuzz.mutate import LEVELS, mutant, mutant_document, written

ROOT = Path(__file__).resolve().parent.parent.parent
ATTRITION = ROOT / "examples" / "attrition"
MAX_SECONDS = 3.0  # of processor time for one mutant; the samples are small
MAX_BYTES = 400_000_000  # by which all mutants of a parser may make the process larger
LIMITS = Limits(max_bytes=1_000_000, max_rows=10_000, max_record_bytes=10_000, chunk_rows=7)
SETTINGS = Settings(runtime="sync")

Try = Callable[[random.Random], tuple[object, Callable[[], object]]]


def _card() -> Card:
    features = [
        {"name": "age", "type": "integer", "min": 16, "max": 70, "example": 35},
        {"name": "pay", "type": "number", "nullable": True, "required": False, "example": 1234.5},
        {"name": "job", "type": "string", "categories": ["cook", "nurse", "à l'étranger"], "example": "cook"},
        {"name": "member", "type": "boolean", "required": False, "nullable": True, "example": True},
    ]
    fields = {
        "name": "people",
        "version": 1,
        "task": "binary",
        "sha256": "0" * 64,
        "labels": {"0": "stays", "1": "goes"},
    }
    return Card.model_validate(fields | {"features": features, "threshold": 0.5})


CARD = _card()
VALIDATOR = RowValidator(CARD)
VERSION = Version(1, CARD.sha256, CARD, VALIDATOR, {"answer": "predict_proba"}, datetime.now(UTC))
ROWS: list[dict[str, Any]] = [
    {"age": 35, "pay": 1234.5, "job": "cook", "member": True},
    {"age": 61, "pay": None, "job": "à l'étranger", "member": False},
]


# ── files of rows ────────────────────────────────────────────────────────────────────────────────────────────────


def _csv_samples() -> list[str]:
    plain = 'age,pay,job,member,note\n35,1234.5,cook,true,"a ""b"", c"\n61,,à l\'étranger,false,\n'
    samples = [plain, plain.replace("\n", "\r\n"), "Title\n\n" + plain, plain * 30, plain.replace(",", ", ")]
    samples += [plain.replace(",", mark) for mark in DELIMITERS.values()]
    samples.append("age;pay;job\n35;1 234,50 €;cook\n61;1.234,5;nurse\n")
    samples.append("age,pay,job\n" + "35,1,cook\n" * 20 + ",,\n" * 10)
    return samples


CSV_PIECES = (
    *(b'"', b'""', b",", b";", b"\t", b"\n", b"\r", b"\r\n", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xe9"),
    *(b"\x1f\x8b", b"a" * 12_000, b"," * 3_000, b"\n" * 3_000, b'"' * 3_001, b"1e999", b"9" * 500, b"=1+1", b"NaN"),
    *(b" ", b"|", b"'", "\u2028".encode(), "\ufeff".encode(), "１２".encode(), b"\x85", b"\x81", b"+", b"\xc3\x28"),
    *(b"sep=;\n",),
)


def try_csv(chance: random.Random) -> tuple[object, Callable[[], object]]:
    """CSV as it is uploaded, in every encoding, packed or not, cut into pieces of any size."""
    text = chance.choice(_csv_samples())
    encoding = chance.choice([*ENCODINGS, "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
    data = text.encode(encoding, "replace")
    if chance.random() < 0.85:
        data = mutant(chance, data, CSV_PIECES)
    if chance.random() < 0.3:
        data = gzip.compress(data, mtime=0)
        if chance.random() < 0.7:
            data = mutant(chance, data, CSV_PIECES)
    options = CsvOptions(
        delimiter=chance.choice([None] * 12 + [*DELIMITERS]),
        encoding=chance.choice([None] * 12 + [*ENCODINGS, "nonsense"]),
        decimal=chance.choice([None] * 4 + ["point", "comma"]),
        strict=chance.random() < 0.2,
        id_column=chance.choice([None] * 6 + ["note", "age", "é"]),
    )
    piece = chance.choice([1, 7, 100, 1 << 16])
    return (options, piece, data), lambda: _read_upload(data, options, piece)


def _read_upload(data: bytes, options: CsvOptions, piece: int) -> int:
    file = UploadReader(CARD, options, LIMITS)
    chunks = [chunk for start in range(0, len(data), piece) for chunk in file.feed(data[start : start + piece])]
    chunks += file.finish()
    assert file.format is not None
    reader = ChunkReader(CARD, VALIDATOR, file.format)
    for chunk in chunks:
        reader.read(chunk.data, first_row=chunk.first_row, row_count=chunk.row_count)
    assert sum(chunk.row_count for chunk in chunks) == file.row_count
    return file.row_count


def _workbook() -> dict[str, bytes]:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["age", "pay", "job", "member"])
    for _ in range(5):
        sheet.append([35, 1234.5, "cook", True])
    sheet.append([datetime(2026, 1, 1), None, "=1+1", "text"])
    written_book = io.BytesIO()
    book.save(written_book)
    with zipfile.ZipFile(written_book) as whole:
        return {name: whole.read(name) for name in whole.namelist()}


XML_PIECES = (
    *(b"<c r='XFD1048576'><v>1</v></c>", b"<row r='999999999'/>", b"&lol;", b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"<"),
    *(b"'", b'r="A1"', b"ref='A1:XFD1048576'", b"-1", b"9" * 30, b"\0", b"t='s'", b"t='d'", b"<v>99999999</v>"),
    *(b"../", b"\xff"),
)
WORKBOOK = _workbook()


def try_workbook(chance: random.Random) -> tuple[object, Callable[[], object]]:
    """Excel workbooks: the archive damaged, or what is written in its parts."""
    parts = dict(WORKBOOK)
    for _ in range(chance.randint(0, 2)):
        name = chance.choice(sorted(parts))
        parts[name] = mutant(chance, parts[name], XML_PIECES)
    if chance.random() < 0.2:
        del parts[chance.choice(sorted(parts))]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as whole:
        for name, content in parts.items():
            whole.writestr(zipfile.ZipInfo(name), content)
    data = packed.getvalue()
    if chance.random() < 0.3:
        data = mutant(chance, data, XML_PIECES)
    return data, lambda: _read_upload(data, CsvOptions(), 1 << 16)


def _parquet() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet

    table = pa.table(
        {
            "age": [35, 61, None],
            "pay": pa.array([1.5, None, float("nan")]),
            "job": pa.array(["cook", "nurse", "cook"]).dictionary_encode(),
            "day": pa.array([datetime(2026, 1, 1), None, datetime(1, 1, 1)], pa.timestamp("us")),
            "member": [True, False, None],
        }
    )
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink)
    return bytes(sink.getvalue().to_pybytes())


BYTE_PIECES = (b"\0", b"\xff" * 8, b"\x7f\xff\xff\xff", b"\x80\x80\x80\x80\x08", b"PAR1", b"\0" * 40, b"a" * 200)
JSON_PIECES = (
    *(b"[" * LEVELS, b'{"a":' * LEVELS, b"NaN", b"Infinity", b"1e999", b"9" * 5_000, b'"\\ud800"', b"\\", b'"'),
    *(b"\0", b"}", b"\xff", b"\xef\xbb\xbf", b"null", b"true", b",", b":", b"\n", b"\x85", b"[]", b"{}", b"-"),
    *(b"0x1", b"'", b"#", b"/*"),
)


def try_reference(chance: random.Random) -> tuple[object, Callable[[], object]]:
    """Reference rows of each type of file."""
    suffix = chance.choice([".jsonl", ".json", ".parquet", ".csv", ".csv.gz"])
    rows = mutant_document(chance, ROWS) if chance.random() < 0.6 else ROWS
    if suffix == ".parquet":
        data = mutant(chance, _PARQUET, BYTE_PIECES)
    elif suffix.startswith(".csv"):
        data = mutant(chance, chance.choice(_csv_samples()).encode(), CSV_PIECES)
        data = gzip.compress(data, mtime=0) if suffix == ".csv.gz" else data
    elif suffix == ".jsonl" and isinstance(rows, list):
        data = "\n".join(map(written, rows)).encode()
    else:
        data = written(rows).encode()
    if suffix in (".json", ".jsonl") and chance.random() < 0.5:
        data = mutant(chance, data, JSON_PIECES)
    return (suffix, data), lambda: _in_file("rows" + suffix, data, _read_reference)


_PARQUET = _parquet()


def _read_reference(path: Path) -> object:
    sample = read_rows(path)
    return canonical_rows(CARD, sample.rows, source=str(path), numbers=sample.numbers, lines=sample.lines)


# ── what operators write ─────────────────────────────────────────────────────────────────────────────────────────


def _mutant_json(chance: random.Random, whole: object) -> bytes:
    document = mutant_document(chance, whole) if chance.random() < 0.8 else whole
    data = written(document).encode()
    return mutant(chance, data, JSON_PIECES) if chance.random() < 0.4 else data


def try_card(chance: random.Random) -> tuple[object, Callable[[], object]]:
    """Cards (model.json), and what is made of those that are valid."""
    data = _mutant_json(chance, chance.choice(_CARDS))
    return data, lambda: _in_file("model.json", data, _read_card)


def _read_card(path: Path) -> object:
    card = Card.load(path)
    card.json_schema()
    return RowValidator(card).validate_many([card.example(), {}, {"age": "x"}])


def _contracts() -> list[dict[str, Any]]:
    own = {
        "description": "For a desk.",
        "labels": {"0": "no", "1": "yes"},
        "threshold": 0.4,
        "features": [
            {"name": "age", "min": 18, "max": 65, "message": "is for adults", "example": 40},
            {"name": "job", "categories": ["cook", "nurse"], "unknown": "refuse"},
        ],
        "rules": [{"expression": "age > 18 or job == 'cook'", "message": "Adults and cooks only."}],
        "input": "flat",
        "extra": "ignore",
        "text": "read",
    }
    others = [json.loads((ROOT / "examples" / name / "contract.json").read_text()) for name in ("attrition", "credit")]
    return [own, *others]


_CONTRACTS = _contracts()
_CARDS = [
    json.loads(CARD.model_dump_json()),
    json.loads(CARD.model_dump_json(exclude_unset=True)),
    json.loads(CARD.model_dump_json(exclude_unset=True)) | {name: _CONTRACTS[0][name] for name in ("rules", "input")},
]


def try_contract(chance: random.Random) -> tuple[object, Callable[[], object]]:
    """Contracts, read and laid over a card."""
    data = _mutant_json(chance, chance.choice(_CONTRACTS))
    package = Package(CARD, None, [dict(row) for row in ROWS], None, None)
    return data, lambda: _in_file("contract.json", data, lambda path: apply_contract(package, path))


YAML_PIECES = (
    *(b"&a [*a]", b"*a", b"2024-13-45", b"!!python/object/apply:os.system ['true']", b"!!int x", b"!!bool maybe"),
    *(b"!!set", b"!!timestamp x", b"!!float x", "!!binary é".encode(), b"\0", b"\xff", b"[" * 2_000, b"{" * 2_000),
    *(b"0b", b"1:99:99", b"- ", b": ", b"<<: *a", b"? ", b"|", b">", b"%YAML 9", b"---", b"...", b'"\\ud800"', b"'"),
    *(b"\t", b"0o8", b".inf", b"=", b"<<: 1"),
)


def try_mlflow(chance: random.Random) -> tuple[object, Callable[[], object]]:
    """Folders that MLflow saved: MLmodel, its signature, the input example, requirements.txt."""
    about = yaml.safe_load((ROOT / "tests/mlflow/visitors/MLmodel").read_text())
    files = {
        name: (ROOT / "tests/mlflow/visitors" / name).read_bytes()
        for name in ("MLmodel", "input_example.json", "requirements.txt")
    }
    kind = chance.randrange(4)
    if kind == 0:
        files["MLmodel"] = mutant(chance, files["MLmodel"], YAML_PIECES)
    elif kind == 1:
        files["MLmodel"] = written(mutant_document(chance, about), levels=2_000).encode()  # JSON is YAML
    elif kind == 2:
        inputs = mutant_document(chance, json.loads(about["signature"]["inputs"]) + _TENSORS)
        about["signature"]["inputs"] = written(inputs)
        files["MLmodel"] = json.dumps(about).encode()
    else:
        files["input_example.json"] = _mutant_json(chance, json.loads(files["input_example.json"]))
        files["requirements.txt"] = mutant(chance, files["requirements.txt"], YAML_PIECES)
    return files, lambda: _read_mlflow(files)


_TENSORS = [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 3]}}]


def _read_mlflow(files: dict[str, bytes]) -> object:
    with tempfile.TemporaryDirectory() as place:
        for name, content in files.items():
            (Path(place) / name).write_bytes(content)
        (Path(place) / "model.skops").write_bytes(b"PK")
        folder = read_mlflow_folder(Path(place))
        advice_of(folder)
        signature = read_signature(folder.about.get("signature"), "MLmodel")
        names = [column.name for column in signature.columns] if signature else None
        return example_of(folder, names)


def try_pickle(chance: random.Random) -> tuple[object, Callable[[], object]]:
    """Model files that are not those whose SHA-256 is registered: refused by first bytes or hash, never unpickled."""
    start = chance.choice(
        [b"\x80\x04\x95", b"PK\x03\x04", b"{", b"tree\nversion=", b"CBM1", b"\x89HDF\r\n", b"<html>", b""]
    )
    data = mutant(chance, start + _PICKLE, BYTE_PIECES)

    def read(path: Path) -> object:
        try:
            check_start(path, data[:300])
        except ArtefactError as error:
            _check_words(error)
        unread = packages.__dict__["_read_pickle"]
        packages.__dict__["_read_pickle"] = _must_not_be_read
        try:
            read_artefact(path, sha256=hashlib.sha256(_PICKLE).hexdigest())
        finally:
            packages.__dict__["_read_pickle"] = unread
        raise AssertionError("a file of another SHA-256 was taken")

    return data, lambda: _in_file("model.joblib", data, read)


_PICKLE = (ROOT / "tests/foreign/passing.joblib").read_bytes()[:5_000]


def _must_not_be_read(*_: object) -> None:
    raise AssertionError("it was unpickled")


SETTING_VALUES = (
    *("", " ", "0", "-1", "1e3", "1e999", "nan", "9" * 400, "true", "é", "\u202e", "a" * 20_000, "[", "{}", "null"),
    *("*", "127.0.0.1", "::1", "postgresql+psycopg2://a:b@c:99999/d", "sqlite:////dev/null", "redis://[::1"),
    *("redis://x:y/z", "postgresql://%zz@h/d", "https://[", "s3://", "hf://a", "file://../x", "/a/../b", "http://é"),
    *("queue", "open", "\n"),
)


def try_settings(chance: random.Random) -> tuple[object, Callable[[], object]]:
    """Settings of the environment and of the files in SECRETS_DIR."""
    names = sorted(Settings.model_fields)
    env = {chance.choice(names).upper(): chance.choice(SETTING_VALUES) for _ in range(chance.randint(1, 4))}
    if chance.random() < 0.2:
        env[mutant(chance, chance.choice(names).upper().encode(), (b"_", b"X")).decode("latin-1")] = "1"
    secrets = {}
    if chance.random() < 0.4:
        value = chance.choice(SETTING_VALUES).encode()
        secrets[chance.choice(names)] = mutant(chance, value, (b"\0", b"\xff", b"\n", b"\r\n", b" ", b"\xef\xbb\xbf"))
    env = {name: value for name, value in env.items() if name and "\0" not in name + value and "=" not in name}
    return (env, secrets), lambda: _read_settings(env, secrets)


def _read_settings(env: dict[str, str], secrets: dict[str, bytes]) -> object:
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in secrets.items():
            (Path(folder) / name).write_bytes(content)
        try:
            os.environ.clear()
            os.environ.update({"RUNTIME": "sync"} | env | ({"SECRETS_DIR": folder} if secrets else {}))
            get_settings.cache_clear()
            return get_settings()
        finally:
            os.environ.clear()
            os.environ.update(before)


# ── headers, names and bodies ────────────────────────────────────────────────────────────────────────────────────

HEADERS = {
    "accept": ["text/csv, application/vnd.apache.parquet;q=0.5, */*;q=0", "text/*;q=0.001", "*/*"],
    "prefer": ['respond-async, wait="10"', "wait=1;a=b, respond-async", "return=minimal"],
    "range": ["bytes=0-99", "bytes=-5", "bytes=5-", "bytes=0-1,4-5"],
    "if-range": ['"abc"', 'W/"abc"'],
    "if-none-match": ['"abc", W/"def"', "*"],
    "idempotency-key": ["order-17", "0199c2d1-1111-7000-8000-000000000000"],
    "x-forwarded-prefix": ["/scores", "/a/b/"],
    "content-type": ["text/csv; charset=cp1252", "multipart/form-data; boundary=abc", "application/gzip"],
    "content-disposition": ["attachment; filename=\"rows.csv\"; filename*=UTF-8''r%C3%A9.csv", "filename=a"],
    "content-encoding": ["gzip", "identity"],
}
HEADER_PIECES = (
    *(b",", b";", b"=", b'"', b"'", b"*", b"q=", b"q=1.0000", b"wait=", b"9" * 400, b"-", b"bytes=", b"\xe9"),
    *(b"\x85", b"\xb2", b"%", b"%zz", b"''", b"utf-7''", b"nonsense''a%ff", b"*0*=", b"*1=", b"\t", b" ", b"\\"),
    *(b"/", b"..", b"a" * 2_000, b"\xa0"),
)


def try_headers(chance: random.Random) -> tuple[object, Callable[[], object]]:
    """The headers that are read here: Accept, Prefer, Range, Idempotency-Key and their like."""
    headers = []
    for name, values in HEADERS.items():
        value = chance.choice(values).encode()
        if chance.random() < 0.3:
            value = mutant(chance, value, HEADER_PIECES).translate(None, b"\r\n\0")  # the server takes none of these
        headers.append((name.encode(), value))
    return headers, lambda: _read_headers(headers)


def _read_headers(headers: list[tuple[bytes, bytes]]) -> object:
    scope = {"type": "http", "method": "GET", "path": "/jobs", "root_path": "", "query_string": b"", "headers": headers}
    request = Request(scope)
    preference = read_preference(request, default=5, cap=20)
    assert 0 <= preference.wait <= 20
    (preference.applied or "").encode("latin-1")
    fields = request.headers
    byte_range = parse_range(fields.get("range"), fields.get("if-range"), '"abc"')
    if byte_range is not None and (settled := resolve_range(byte_range, 1_000)) is not None:
        assert 0 <= settled[0] < settled[1] <= 1_000
    assert preferred_type(fields.get("accept"), ("text/csv", "application/json")) in (
        None,
        "text/csv",
        "application/json",
    )
    etag_matches(fields.get("if-none-match"), '"abc"')
    prefix = Prefix("", proxy_hops=1).of(scope)
    assert prefix == "" or (prefix.startswith("/") and prefix.isascii() and "/." not in prefix)
    _refused(lambda: set_idempotency_key(SimpleNamespace(), request, Caller(None, frozenset())))  # type: ignore[arg-type]
    envelope = read_envelope(fields)
    if envelope.filename is not None:
        _check_name(envelope.filename)
    return envelope


def _check_name(name: str) -> None:
    """Check that a file's name can be stored and sent back, as a name and not as a path."""
    name.encode("utf-8")
    assert name.isprintable()
    assert "/" not in name
    assert "\\" not in name
    file, job = SimpleNamespace(filename=name), SimpleNamespace(id="0199c2d1")
    disposition = _headers(file_name(file, job, ".csv"), '"a"', 1)["Content-Disposition"]  # type: ignore[arg-type]
    assert "\r" not in disposition
    assert "\n" not in disposition
    disposition.encode("latin-1")


FORM = (
    b'--abc\r\nContent-Disposition: form-data; name="file"; filename="r\xc3\xa9sum\xc3\xa9.csv"\r\n'
    b"Content-Type: text/csv\r\n\r\nage,job\r\n35,cook\r\n--abc--\r\n"
)
NAME_PIECES = (
    *(b"../", b"..\\", b"\0", b"\x7f", b"\r\n", b'"', b"\\", "\u202e".encode(), b"\xff\xfe", b"con", b"a" * 3_000),
    *(b"%00", b"~", b"--abc", b"--abc--", b"\r\n\r\n", b"filename*=", b"utf-16''%ff", b"nonsense''x"),
    *(b"Content-Transfer-Encoding: base64\r\n", "\ud83d\ude00".encode("utf-16", "surrogatepass"), "😀".encode()),
    *(b"\xed\xa0\x80", b"CON", b";", b"=", b"'"),
)


def try_form(chance: random.Random) -> tuple[object, Callable[[], object]]:
    """Forms with a file, and the file's name."""
    data, piece = mutant(chance, FORM, NAME_PIECES), chance.choice([1, 10, 1 << 16])
    return (piece, data), lambda: _read_form(data, piece)


def _read_form(data: bytes, piece: int) -> object:
    envelope = read_envelope(Headers({"content-type": "multipart/form-data; boundary=abc"}))
    unwrapper = UploadDecoder(envelope, max_bytes=1_000_000)
    content = b"".join(
        part for start in range(0, len(data), piece) for part in unwrapper.unwrap(data[start : start + piece])
    )
    content += b"".join(unwrapper.finish())
    if unwrapper.filename is not None:
        _check_name(unwrapper.filename)
    return content


INFERENCE = {
    "id": "a",
    "parameters": {"binary_data_output": True},
    "inputs": [
        {"name": "age", "shape": [2], "datatype": "INT64", "parameters": {"binary_data_size": 16}},
        {"name": "pay", "shape": [2, 1], "datatype": "FP64", "data": [1.5, None]},
        {"name": "job", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 17}},
        {"name": "member", "shape": [2], "datatype": "BOOL", "data": [True, False]},
    ],
    "outputs": [{"name": "predict_proba", "parameters": {"binary_data": True}}],
}
BUFFERS = (35).to_bytes(8, "little") + (61).to_bytes(8, "little") + b"\4\0\0\0cook\5\0\0\0nurse"


def try_tensors(chance: random.Random) -> tuple[object, Callable[[], object]]:
    """Tensors in JSON and in bytes."""
    document = mutant_document(chance, INFERENCE) if chance.random() < 0.7 else INFERENCE
    head = written(document).encode()
    head = mutant(chance, head, JSON_PIECES) if chance.random() < 0.2 else head
    buffers = mutant(chance, BUFFERS, BYTE_PIECES) if chance.random() < 0.6 else BUFFERS

    def read() -> object:
        return read_inference(VERSION, TensorBody(parse_json(head), memoryview(buffers), head), max_rows=100)

    return (head, buffers), read


FRAMES: tuple[dict[str, Any], ...] = (
    {"dataframe_split": {"columns": list(ROWS[0]), "data": [list(row.values()) for row in ROWS]}},
    {"dataframe_records": ROWS, "params": {"output": "predict_proba"}},
    {"inputs": {name: [row[name] for row in ROWS] for name in ROWS[0]}},
    {"instances": ROWS},
)


def try_frames(chance: random.Random) -> tuple[object, Callable[[], object]]:
    """The four forms of a body of MLflow's."""
    data = _mutant_json(chance, chance.choice(FRAMES))
    return data, lambda: read_json_frame(VERSION, data, SETTINGS)


# ── how they are tried ───────────────────────────────────────────────────────────────────────────────────────────

PARSERS: dict[str, Try] = {
    "csv": try_csv,
    "workbook": try_workbook,
    "reference": try_reference,
    "card": try_card,
    "contract": try_contract,
    "mlflow": try_mlflow,
    "pickle": try_pickle,
    "settings": try_settings,
    "headers": try_headers,
    "form": try_form,
    "model-form": try_model_form,
    "training": try_training,
    "console-form": try_console_form,
    "cookies": try_cookies,
    "tensors": try_tensors,
    "frames": try_frames,
}
OPERATORS = {"reference", "card", "contract", "mlflow", "pickle"}  # of these: CardError and ArtefactError; else 4xx


def _in_file(name: str, data: bytes, read: Callable[[Path], object]) -> object:
    path = Path(_folder.name) / name
    path.write_bytes(data)
    return read(path)


_folder = tempfile.TemporaryDirectory()


def _check_words(error: GuichetError) -> None:
    assert error.detail.rstrip("'\"`)").endswith((".", "?")), error.detail


def _refused(read: Callable[[], object]) -> GuichetError | None:
    try:
        read()
    except GuichetError as error:
        return error
    return None


def attempt(name: str, number: int) -> tuple[str, str]:
    """Try one mutant; return how it ended, and what is wrong with that (nothing: it is as documented)."""
    mutant, read = PARSERS[name](random.Random(f"{name} {number}"))
    began = time.process_time()
    try:
        error = _refused(read)
        ended = "taken" if error is None else type(error).__name__
        if error is not None:
            _check_words(error)
            is_documented = (
                isinstance(error, CardError | ArtefactError) if name in OPERATORS else 400 <= error.status < 500
            )
            assert is_documented, f"{type(error).__name__} is none of its errors"
    except SystemExit as error:  # how wrong settings stop the start
        ended = "SystemExit"
        if name != "settings" or not str(error).startswith("guichet: the settings do not hold:\n  "):
            return ended, f"{name} {number}: {error!r:.500}\n{mutant!r:.2000}"
    except BaseException as error:  # noqa: BLE001 - what escapes is looked for, also what Rust panics with
        trace = "".join(traceback.format_exception(error)[-4:])[-1_500:]
        return "escaped", f"{name} {number}: {type(error).__name__}: {trace}\n{mutant!r:.2000}"
    if (seconds := time.process_time() - began) > MAX_SECONDS:
        return ended, f"{name} {number} took {seconds:.1f} s of the processor\n{mutant!r:.2000}"
    return ended, ""


def main(arguments: Iterable[str] | None = None) -> int:
    """Try mutants of one parser; write what came of them as JSON, a line for each that is wrong, then the sums."""
    options = argparse.ArgumentParser()
    options.add_argument("name", choices=PARSERS)
    options.add_argument("--first", type=int, default=0)
    options.add_argument("--count", type=int, default=1)
    options.add_argument("--last", help="file into which each number is written before it is tried")
    chosen = options.parse_args(list(arguments) if arguments is not None else None)
    logging.disable(logging.CRITICAL)
    csv.field_size_limit()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    attempt(chosen.name, chosen.first)  # what is loaded at the first time is no mutant's memory
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    endings: Counter[str] = Counter()
    slowest = 0.0
    for number in range(chosen.first, chosen.first + chosen.count):
        if chosen.last:
            Path(chosen.last).write_text(str(number))
        began = time.process_time()
        ended, wrong = attempt(chosen.name, number)
        slowest = max(slowest, time.process_time() - began)
        endings[ended] += 1
        if wrong:
            print(json.dumps(wrong))
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    if grown > MAX_BYTES:
        print(json.dumps(f"{chosen.name}: the process grew by {grown / 1e6:.0f} MB"))
    print(json.dumps({"ended": endings, "slowest": round(slowest, 2), "grown_mb": round(grown / 1e6)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

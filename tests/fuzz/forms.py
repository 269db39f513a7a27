"""Forms of strangers, changed by chance: uploads of models and of rows to train on, the console's, and its cookies."""

import gzip
import io
import json
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request

from api.console.forms import parse_fields, row_of
from api.console.session import seal, unseal
from api.files.models import ModelForm, ReceivedFile, read_upload
from api.files.trainings import TrainingRows
from api.files.uploads.unwrapping import UploadDecoder, read_envelope
from api.http.cookies import with_own_cookies
from shared.config.settings import Settings
from shared.csv.format import CsvOptions
from shared.training.options import TrainingOptions
from tests.fuzz.mutate import mutant, mutant_document, written
from tests.support.trainings import TARGET, csv_of, make_rows

BOUNDARY = b"abc"
PIECES = (
    *(b"../", b"\0", b"\r\n", b'"', b"\\", b"\xff\xfe", b"a" * 5_000, b"--abc", b"--abc--", b"\r\n\r\n", b"filename="),
    *(b"NaN", b"9" * 500, b"-1", b"1e999", b"[" * 3_000, b'{"a":' * 200, b"\\u0000", b"\\ud800", b"\xed\xa0\x80"),
    *(b'name="name"', b'name="code"; filename="os.py"', b"PK\x03\x04", b"Content-Transfer-Encoding: base64\r\n"),
)
DOCUMENTS = {
    "labels": {"0": "stays", "1": "leaves"},
    "threshold": {"model": {"threshold": 0.3}},
    "metrics": {"roc_auc": 0.81, "rows": 1_200},
}
FIELDS = {
    **{"name": b"churn", "target": b"left", "task": b"binary", "version": b"3", "skip_bad": b"true"},
    **{"trust": b"a.B,c.D", "delimiter": b"semicolon", "decimal": b"comma", "encoding": b"utf-8"},
}
MAX_STORED = 2_000_000  # characters of the options of one upload
COOKIES = b'a=b; guichet_language=fr; guichet_session=1.00.guichet_x; c="d e"'
COOKIE_PIECES = (
    b'"',
    b"\\",
    b"\\101",
    b";",
    b"=",
    b",",
    b" ",
    b'"' + b"\\a" * 8_000,
    b"guichet_session=",
    b"\xff",
    b"%3B",
)
FEATURES: list[dict[str, Any]] = [
    {"name": "age", "type": "integer"},
    {"name": "pay", "type": "number", "nullable": True},
    {"name": "member", "type": "boolean"},
    {"name": "job", "type": "string", "categories": ["cook", "nurse"]},
]
CONSOLE = b"f:age=35&f:pay=1%2C5&f:member=true&f:job=cook&etag=%22a%22&reason=because"
CONSOLE_PIECES = (
    b"%",
    b"%zz",
    b"%00",
    b"+",
    b"&",
    b"=",
    b"f:age=",
    b"9" * 5_000,
    b"%ff%fe",
    b"\xff",
    b"e309",
    b"\xc2\xa0",
)

Read = Callable[[], object]


def try_model_form(chance: random.Random) -> tuple[object, Read]:
    """Forms with a model: their bytes, and the small documents in them."""
    fields = dict(FIELDS)
    for name, document in DOCUMENTS.items():
        changed = mutant_document(chance, document) if chance.random() < 0.3 else document
        fields[name] = written(changed).encode("utf-8", "surrogatepass")
    if chance.random() < 0.3:
        name = chance.choice(list(fields))
        fields[name] = mutant(chance, fields[name], PIECES)
    data = b"".join(
        b'--abc\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), value)
        for name, value in fields.items()
    )
    data += b'--abc\r\nContent-Disposition: form-data; name="artefact"; filename="m.joblib"\r\n\r\n\x80\x04].'
    data += b"\r\n--abc--\r\n"
    if chance.random() < 0.3:
        data = mutant(chance, data, PIECES)
    piece = chance.choice([1, 100, 1 << 16])
    return (piece, data), lambda: _read_model_form(data, piece)


def _read_model_form(data: bytes, piece: int) -> object:
    with ModelForm(BOUNDARY, max_bytes=100_000) as form:
        for start in range(0, len(data), piece):
            form.parse(data[start : start + piece])
        form.check_end()
        upload = read_upload(form, "anyone")
        assert form.size <= 100_000
    options = [upload.options, [file._asdict() for file in upload.files.values()]]
    stored = json.dumps(options, ensure_ascii=False, allow_nan=False)
    assert len(stored) < MAX_STORED
    stored.encode()  # no lone surrogate, which no database takes
    assert "\\u0000" not in stored.replace("\\\\", "")
    for file in upload.files.values():
        assert "/" not in file.name
        assert ".." not in file.name
    return upload


_ROWS = csv_of(make_rows(60))
_OPTIONS = TrainingOptions(name="churn", target=TARGET)
_SERVICES: Any = SimpleNamespace(settings=Settings(runtime="sync", max_training_bytes=100_000, max_training_rows=500))


def try_training(chance: random.Random) -> tuple[object, Read]:
    """Files of rows to train on, plain and packed, with other pieces of CSV in them."""
    data = mutant(chance, _ROWS, (*PIECES, b"\n" * 1_000, b",", b";", b"left", b'"' * 99, b"x,y\n" * 600))
    is_packed = chance.random() < 0.3
    if is_packed:
        data = gzip.compress(data) if chance.random() < 0.5 else mutant(chance, gzip.compress(data), PIECES)
    piece = chance.choice([1_000, 1 << 16])
    return (is_packed, data), lambda: _read_training(data, piece, is_packed=is_packed)


def _read_training(data: bytes, piece: int, *, is_packed: bool) -> object:
    headers = {"content-type": "text/csv"} | ({"content-encoding": "gzip"} if is_packed else {})
    decoder = UploadDecoder(read_envelope(Headers(headers)), max_bytes=100_000)
    rows = TrainingRows(_SERVICES, _OPTIONS, CsvOptions(), ReceivedFile(io.BytesIO(), None))
    for start in range(0, len(data), piece):
        rows.take(decoder.unwrap(data[start : start + piece]))
    rows.take(decoder.finish())
    rows.finish()
    assert rows.file.size <= 200_000
    return rows


def try_console_form(chance: random.Random) -> tuple[object, Read]:
    """The forms of the console: a row, a reason, a version."""
    data = mutant(chance, CONSOLE, CONSOLE_PIECES)

    def read() -> object:
        fields = parse_fields(data)
        row = row_of(FEATURES, fields)
        return json.dumps(row, allow_nan=False).encode()

    return data, read


def try_cookies(chance: random.Random) -> tuple[object, Read]:
    """The Cookie header, and the session in it."""
    value = mutant(chance, COOKIES, COOKIE_PIECES).translate(None, b"\r\n\0")  # the server takes none of these

    def read() -> object:
        headers = with_own_cookies([(b"cookie", value), (b"host", b"a")])
        cookies = Request({"type": "http", "headers": headers}).cookies
        session = unseal(cookies.get("guichet_session", ""), now=0.0)
        assert session.key == ""  # nobody guesses a seal
        return session

    assert unseal(seal("guichet_" + "a" * 43, now=0.0), now=0.0).key
    return value, read

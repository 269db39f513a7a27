"""CSV bytes as UTF-8 text: byte order marks, the encoding, and refusal of files that are no CSV."""

import codecs
import re
from collections.abc import Callable, Iterator

from shared.errors import RowFaults, UnsupportedMediaType
from shared.faults import Fault

CONTEXT_BYTES = 40  # before the first byte beyond ASCII: the word that it is in
DECISION_BYTES = 1 << 16  # from the first byte beyond ASCII on: so much text decides between UTF-8 and cp1252

_SIGNATURES = (
    (rb"PK[\x03\x05][\x04\x06]", "a ZIP archive", "send the CSV file itself, or compress it with gzip"),
    (
        rb"\xd0\xcf\x11\xe0",
        "an old Excel or Word file, or a protected one",
        "save it as .xlsx without a password, or as CSV",
    ),
    (rb"\x1f\x8b", "gzip within gzip", "compress the file once"),
    (
        rb"\x28\xb5\x2f\xfd|BZh\d1AY|\xfd7zXZ|7z\xbc\xaf|Rar!\x1a",
        "an archive",
        "send the CSV file itself, or with gzip",
    ),
    (rb"PAR1[\x00-\x08\x0e-\x1f]|ARROW1\x00|Obj\x01", "Parquet, Arrow or Avro", "write the table as CSV and send that"),
    (rb"SQLite format 3\x00", "an SQLite database", "write the table as CSV and send that"),
    (rb"%PDF-", "a PDF document", "send the table itself as CSV"),
    (rb"\x89PNG|\xff\xd8\xff|GIF8[79]a|BM.{4}\x00{4}|II\*\x00|MM\x00\*", "an image", "send the table as CSV"),
    (rb"\s*<(?:!|\?|[a-zA-Z])", "an HTML or XML document", "send the table as CSV"),
    (rb"\s*(?:\{\s*[\"}]|\[\s*[\[{\"])", "a JSON document", "send JSON rows to /predict_batch, or the table as CSV"),
)
_NOT_CSV = [(re.compile(pattern, re.DOTALL), kind, advice) for pattern, kind, advice in _SIGNATURES]
_NUL_IN_FIRST_LINE = re.compile(rb"\s*+[^\r\n\x00]*+\x00")
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")

Codec = Callable[[bytes, str, bool], tuple[str, int]]  # bytes, errors, final -> text, how many bytes it took

# Five bytes have no character in cp1252; they are taken as latin-1 has them, as browsers do.
_CP1252 = "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in range(256))
_CODECS: dict[str, Codec] = {
    "utf-8": codecs.utf_8_decode,
    "utf-16": codecs.utf_16_le_decode,
    "utf-16-le": codecs.utf_16_le_decode,
    "utf-16-be": codecs.utf_16_be_decode,
    "cp1252": lambda data, errors, _final: codecs.charmap_decode(data, errors, _CP1252),
    "latin-1": lambda data, errors, _final: codecs.latin_1_decode(data, errors),
}
_MARKS: tuple[tuple[bytes, tuple[str, ...], Codec], ...] = (
    (codecs.BOM_UTF8, ("utf-8",), codecs.utf_8_decode),
    (codecs.BOM_UTF16_LE, ("utf-16", "utf-16-le"), codecs.utf_16_le_decode),
    (codecs.BOM_UTF16_BE, ("utf-16", "utf-16-be"), codecs.utf_16_be_decode),
)
# A word of a language that is written in cp1252 has no such places. Text of another encoding does: a sign beside a
# letter (`Mari‚e`, cp850; `£ódŸ`, cp1250), a capital behind a small letter (`MariŽe`, Mac), rows of accents (`Ìîñêâà`).
_LETTER, _SIGN = "A-Za-zÀ-ÖØ-öø-ÿŠšŽžŒœŸ", "‚ƒ„…†‡ˆ‰‹“”•–—˜™›¡-¶¸-¿×÷"
_ALONE = "ƒ‡ˆ‰˜¢£¤¥¦¨¬¯±´¶¸¹¼¾×÷"  # signs that stand beside no letter
_FOREIGN = re.compile(
    f"[{_LETTER}][{_ALONE}¿¡‚„]|[{_ALONE}][{_LETTER}]|[{_ALONE}]{{2}}|[{_LETTER}][{_SIGN}][a-zà-öø-ÿ]"
    "|[a-zà-öø-ÿ][À-ÖØ-ÞŠŽŸŒ]|[À-ÖØ-öø-ÿ]{3}"
)


class BadBytes(Exception):
    """What follows is not text in the file's encoding."""


class TextDecoder:
    """Turns the bytes of one upload into UTF-8 as they come; the first of them must hold the first line."""

    def __init__(self, head: bytes, encoding: str | None) -> None:
        self._encoding = encoding  # None: ASCII so far
        self._codec = _CODECS[encoding] if encoding else None
        self._is_checked = encoding not in ("cp1252", "latin-1")  # nothing speaks against the given encoding
        self._before = b""  # the last bytes of text that was ASCII so far
        self._held = b""  # bytes that cannot be turned into text before more of them have come
        self.is_guess = False  # it is cp1252 because it is not UTF-8
        self._skip = 0  # bytes of the byte order mark that are still to come by
        self.bom = encoding not in (None, "utf-8")
        self._check_head(head, encoding)

    @property
    def encoding(self) -> str:
        """Return the encoding; while all was ASCII it is UTF-8, and may still turn out to be cp1252."""
        return self._encoding or "utf-8"

    def _check_head(self, head: bytes, named: str | None) -> None:
        """Find the byte order mark; raise 415 for files that are no CSV, 422 for a mark of another encoding."""
        for pattern, kind, advice in _NOT_CSV:
            if pattern.match(head.removeprefix(codecs.BOM_UTF8)):
                raise UnsupportedMediaType(f"The file looks like {kind}, not like CSV: {advice}.")
        if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
            raise UnsupportedMediaType("The file is text in UTF-32: save it as UTF-8.")
        for mark, encodings, codec in _MARKS:
            if head.startswith(mark):
                if named not in (None, *encodings):
                    raise _wrong_encoding(f"The file is marked as {encodings[0]}, not {named}: leave out encoding.")
                self._encoding, self._codec, self._skip, self.bom = named or encodings[0], codec, len(mark), True
        if named == "utf-16" and not self._skip and head[::2].count(0) > head[1::2].count(0):
            self._codec = codecs.utf_16_be_decode
        if not self._is_wide and _NUL_IN_FIRST_LINE.match(head):
            raise UnsupportedMediaType(
                "The file has a NUL byte in its first line, as no CSV has: send text, or give encoding=utf-16 if it is."
            )

    @property
    def _is_wide(self) -> bool:
        return self._encoding is not None and self._encoding.startswith("utf-16")

    def decode(self, data: bytes, *, final: bool = False) -> Iterator[bytes]:
        """Yield the text of these bytes, in UTF-8; then raise BadBytes if the next ones are wrong."""
        if self._skip:
            self._skip, data = max(self._skip - len(data), 0), data[self._skip :]
        if self._held:
            data, self._held = self._held + data, b""
        if not self._is_wide and data.isascii():
            self._before = (
                data[-CONTEXT_BYTES:] if len(data) >= CONTEXT_BYTES else (self._before + data)[-CONTEXT_BYTES:]
            )
            yield data
            return
        if self._codec is None or not self._is_checked:
            start = _start_beyond_ascii(data)
            yield data[:start]
            self._before = (self._before + data[:start])[-CONTEXT_BYTES:]
            data = data[start:]
            if len(data) < DECISION_BYTES and not final:
                self._held = data
                return
            self._settle(data[:DECISION_BYTES])
        assert self._codec is not None
        yield from self._decode(self._codec, data, final=final)

    def _settle(self, sample: bytes) -> None:
        """Choose between UTF-8 and cp1252, or check the given encoding; the sample begins with a byte beyond ASCII."""
        likely = _decide(sample)
        if self._codec is None:
            if likely == "cp1252" and _is_foreign(self._before + sample):
                raise _wrong_encoding(
                    "The file is not UTF-8, and its words make no sense in cp1252: save it as UTF-8, or give "
                    "encoding=cp1252 if that is what it is."
                )
            self._encoding, self._codec, self.bom = likely, _CODECS[likely], likely != "utf-8"
            self.is_guess = likely == "cp1252"
        elif likely == "utf-8":
            raise _wrong_encoding(
                f"The file is UTF-8, not {self._encoding}, as which every accent would become two signs: leave out "
                "encoding."
            )
        elif self._encoding == "latin-1" and re.search(rb"[\x80-\x9f]", sample):
            raise _wrong_encoding(
                "The file has signs that Latin-1 does not have, and cp1252 has (a euro, typographic quotes): give "
                "encoding=cp1252, or save it as UTF-8."
            )
        self._is_checked = True

    def _decode(self, codec: Codec, data: bytes, *, final: bool) -> Iterator[bytes]:
        try:
            text, used = codec(data, "strict", final)
        except UnicodeDecodeError as error:
            good = data[: error.start]
            yield codec(good, "strict", False)[0].encode()
            raise BadBytes from None
        self._held = data[used:]
        yield data[:used] if self._encoding == "utf-8" else text.encode()


def _start_beyond_ascii(data: bytes) -> int:
    match = _BEYOND_ASCII.search(data)
    return match.start() if match else len(data)


def _decide(sample: bytes) -> str:
    """Return `utf-8` or `cp1252`: what most characters beyond ASCII speak for.

    A byte spoilt here and there does not make cp1252 of a UTF-8 file, where every accent would be read as two signs.
    """
    text, _ = codecs.utf_8_decode(sample, "surrogateescape", len(sample) < DECISION_BYTES)
    beyond = [character for character in text if character > "\x7f"]
    bad = sum(1 for character in beyond if "\udc80" <= character <= "\udcff")
    return "utf-8" if len(beyond) - bad > bad else "cp1252"


def _is_foreign(sample: bytes) -> bool:
    """Return whether half of the words beyond ASCII make no sense as cp1252, or some bytes are not in it."""
    if re.search(rb"[\x81\x8d\x8f\x90\x9d]", sample):  # no character of cp1252
        return True
    text, _ = codecs.charmap_decode(sample, "strict", _CP1252)
    words = [word for word in re.findall(r"[^\x00-\x40\x5b-\x60\x7b-\x7f]+", text) if not word.isascii()]
    return 2 * sum(_FOREIGN.search(word) is not None for word in words) >= max(len(words), 1)


def wrong_bytes(encoding: str, place: str) -> RowFaults:
    """Return a sentence with the place where the text stops being text, and advice."""
    other = "cp1252" if encoding == "utf-8" else "utf-8"
    return _wrong_encoding(
        f"The file is not {encoding} throughout: {place} has bytes that are no character. "
        f"Save the file as UTF-8, or give encoding={other} if that is what it is."
    )


def _wrong_encoding(sentence: str) -> RowFaults:
    return RowFaults(sentence, faults=[Fault("", "encoding", sentence)])

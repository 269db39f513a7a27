"""CSV uploads read as they arrive: what becomes of realistic files, of broken ones, and of hostile ones."""

import csv
import gzip
import io
import json
import tracemalloc
import zlib
from dataclasses import replace
from itertools import accumulate, chain, pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import examples.attrition
import shared.csv.uploads.decoding
import shared.csv.uploads.reader
from examples.attrition.features import FEATURES
from shared.cards.card import Card
from shared.cards.features import Feature
from shared.csv.format import Chunk, CsvOptions, Limits
from shared.csv.uploads.reader import UploadReader, split_chunk
from shared.errors import GuichetError, MalformedBody, RowFaults, TooLarge, UnsupportedMediaType


def card(**changes):
    fields = {"name": "attrition", "version": 3, "task": "binary", "sha256": "0" * 64, "features": FEATURES}
    return Card.model_validate(fields | changes)


PEOPLE = json.loads((Path(examples.attrition.__file__).parent / "rows.json").read_text(encoding="utf-8"))
NAMES = [feature.name for feature in FEATURES]
ATTRITION = card()
SMALL = card(
    features=[
        {"name": "age", "type": "integer"},
        {"name": "pay", "type": "number", "required": False},
        {"name": "job", "type": "string", "required": False},
    ]
)
DETECT = CsvOptions()
LIMITS = Limits(max_bytes=10_000_000, max_rows=100_000, max_record_bytes=100_000)


def read(data, of=SMALL, options=DETECT, limits=LIMITS, piece=1 << 16):
    file = UploadReader(of, options, limits)
    chunks = []
    for start in range(0, len(data), piece):
        chunks += file.feed(data[start : start + piece])
    return [*chunks, *file.finish()], file


def body(data, **options):
    chunks, _ = read(data, **options)
    return b"".join(chunk.data for chunk in chunks)


def form(data, **options):
    return read(data, **options)[1].format


def refusal(data, kind=RowFaults, **options):
    with pytest.raises(kind) as caught:
        read(data, **options)
    return caught.value


def code(data, **options):
    (fault,) = refusal(data, **options).faults
    assert fault.pointer == ""
    return fault.code


def people(delimiter=",", newline="\n", decimal=".", quoting=csv.QUOTE_MINIMAL, times=1):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator=newline, quoting=quoting)
    writer.writerow(NAMES)
    for row in PEOPLE * times:
        cells = [row[name] for name in NAMES]
        writer.writerow([str(cell).replace(".", decimal) if isinstance(cell, float) else cell for cell in cells])
    return out.getvalue()


# Files as people have them


def test_plain_file_becomes_one_chunk_below_its_header():
    text = people()
    chunks, file = read(text.encode(), of=ATTRITION)
    (chunk,) = chunks
    assert (chunk.first_row, chunk.row_count) == (0, len(PEOPLE))
    assert chunk.data.decode() == text.partition("\n")[2]
    assert (file.row_count, file.byte_count) == (len(PEOPLE), len(text.encode()))
    assert file.format.columns == tuple(NAMES)
    assert (file.format.delimiter, file.format.encoding, file.format.decimal) == (",", "utf-8", ".")
    assert (file.format.id_column, file.format.bom) == (None, False)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_french_excels_file_is_read_in_each_of_its_encodings(encoding, quoting):
    text = people(";", "\r\n", ",", quoting)
    assert "é" in text
    chunks, file = read(text.encode(encoding), of=ATTRITION)
    assert b"".join(chunk.data for chunk in chunks).decode() == text.partition("\n")[2]
    assert (file.format.delimiter, file.format.decimal) == (";", ",")
    assert file.format.columns == tuple(NAMES)
    assert file.format.encoding == encoding.removesuffix("-sig")
    assert file.format.bom == (encoding != "utf-8")


@pytest.mark.parametrize("delimiter", ["\t", "|"])
def test_tabs_and_pipes_are_delimiters_too(delimiter):
    assert form(people(delimiter).encode(), of=ATTRITION).delimiter == delimiter


def test_big_endian_utf16_is_read():
    data = b"\xfe\xff" + "age;job\n1;Célibataire 🙂\n".encode("utf-16-be")
    assert body(data, piece=1).decode() == "1;Célibataire 🙂\n"


def test_utf16_without_a_mark_is_read_when_the_caller_says_so():
    data = "age;job\n1;é\n".encode("utf-16-le")
    assert "NUL byte in its first line" in refusal(data, UnsupportedMediaType).detail
    assert body(data, options=CsvOptions(encoding="utf-16")).decode() == "1;é\n"


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_blank_lines_are_not_rows_wherever_they_are(newline):
    lines = [b"", b"", b"age,job", b"", b"1,a", b"", b"", b"2,b", b"", b""]
    chunks, _ = read(newline.join(lines))
    assert [chunk.row_count for chunk in chunks] == [2]


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_last_newline_may_be_absent(newline):
    assert sum(chunk.row_count for chunk in read(newline.join([b"age,job", b"1,a", b"2,b"]))[0]) == 2


def test_quoted_newlines_are_text():
    data = b'age,job\n1,"a\nb\r\n\nc"\n2,"""\n"\n'
    assert read(data)[1].row_count == 2


def test_header_may_have_a_quoted_newline_too():
    assert form(b'age,"job\ntitle"\n1,a\n').columns == ("age", "job\ntitle")


def test_stray_quote_is_text():
    data = b'age,job\n1,5" pipe\n2,b\n3,"x" y "z\n4,d\n'
    chunks, _ = read(data, limits=replace(LIMITS, chunk_rows=1))
    assert [chunk.data for chunk in chunks] == [b'1,5" pipe\n', b"2,b\n", b'3,"x" y "z\n', b"4,d\n"]


def test_ragged_rows_are_left_to_the_rows_reader():
    assert read(b"age,job\n1\n2,b,c\n;;;;\n,\n3,a\n")[1].row_count == 5


def test_nul_in_a_cell_is_left_to_the_rows_reader():
    assert body(b"age,job\n1,a\x00b\n") == b"1,a\x00b\n"


def test_extra_columns_and_the_id_column_are_in_the_format():
    csv_form = form(b"employee_id,age,comment\n7,1,a\n")
    assert csv_form.columns == ("employee_id", "age", "comment")
    assert csv_form.id_column == "employee_id"


def test_caller_overrides_what_would_be_detected():
    data = b"ref;age;pay\nx,y;1;2.5\n"
    options = CsvOptions(delimiter="semicolon", encoding="latin-1", decimal="comma", id_column="ref")
    csv_form = form(data, options=options)
    assert (csv_form.delimiter, csv_form.encoding, csv_form.decimal, csv_form.id_column) == (";", "latin-1", ",", "ref")


def test_format_is_known_with_the_first_chunk():
    file = UploadReader(SMALL, CsvOptions(), replace(LIMITS, chunk_rows=1, chunk_bytes=10))
    assert file.format is None
    assert list(file.feed(b"age;pay\n")) == []
    next(file.feed(b"1;0,5\n" * 20_000))
    assert file.format.decimal == ","


def test_decimal_mark_beyond_the_first_chunk_is_not_looked_for():
    assert form(b"age;pay\n1;2\n3;4,5\n", limits=replace(LIMITS, chunk_rows=1)).decimal == "."


# Encodings


def test_chunks_before_the_first_accent_are_plain_whatever_follows():
    data = b"age;job\n" + b"1;a\n" * 30_000 + "2;Célibataire\n".encode("cp1252") + b"3;c\n" * 30_000
    chunks, file = read(data)
    assert file.format.encoding == "cp1252"
    assert file.format.bom
    assert file.row_count == 60_001
    assert b"".join(chunk.data for chunk in chunks) == (
        b"1;a\n" * 30_000 + "2;Célibataire\n".encode() + b"3;c\n" * 30_000
    )


@pytest.mark.parametrize("size", range(10))
def test_character_cut_in_two_on_its_way_is_one_character(size):
    data = b"age;job\n" + b"1;a\n" * 20_000 + b"x" * size + "é🙂\n".encode() * 30_000
    assert body(data, piece=4096)[-7:].decode() == "é🙂\n"
    assert form(data, piece=4096).encoding == "utf-8"


def test_bytes_that_cp1252_leaves_open_are_read_as_browsers_do_where_it_is_given():
    assert body(b"age;job\n1;\x80\x81\xe9\n", options=CsvOptions(encoding="cp1252")).decode() == "1;€\x81é\n"
    assert code(b"age;job\n1;\x80\x81\xe9\n") == "encoding"


RUSSIAN, POLISH, FRENCH = "1;Москва\n2;Женат\n", "1;Łódź\n2;żonaty\n3;wąż\n", "1;Ingénieur\n2;Mariée\n3;Célibataire\n"
OTHERS = [
    *(("cp1251", RUSSIAN), ("koi8-r", RUSSIAN), ("cp866", RUSSIAN), ("cp1250", POLISH), ("iso8859-2", POLISH)),
    *(("cp1253", "1;Αθήνα\n2;έγγαμος\n"), ("shift_jis", "1;東京\n2;既婚\n"), ("gb18030", "1;北京\n2;已婚\n")),
    *(("cp850", FRENCH), ("mac_roman", FRENCH), ("euc_kr", "1;서울\n2;기혼\n")),
]


@pytest.mark.parametrize(("encoding", "rows"), OTHERS)
def test_encodings_that_are_not_read_are_refused_and_not_taken_for_cp1252(encoding, rows):
    data = ("age;job\n" + rows).encode(encoding)
    assert "make no sense in cp1252: save it as UTF-8" in refusal(data).detail
    assert form(data, options=CsvOptions(encoding="cp1252")).encoding == "cp1252"  # who says so is believed


WESTERN = [
    "Ingénieur d’études, à 5€, « Très » œuvre, 3ème étage, N° 12, 20 m² ½ – naïve, L’Haÿ-les-Roses",
    *(
        "Müller, Größe, ÄRZTE, „Straße“",
        "¿Qué? año, ÑANDÚ, 1ª",
        "coração, São Paulo, órfão",
        "smörgåsbord, Århus, blåbær",
    ),
    *("pöytä, hääyö", "Þórður, Ísafjörður", "coördinatie", "Excel®, 25 °C, £5, ±3"),
]


@pytest.mark.parametrize("text", WESTERN)
def test_languages_of_western_europe_are_read_as_cp1252_and_it_is_told(text):
    chunks, file = read(f"age;job\n1;{text}\n".encode("cp1252"))
    assert chunks[0].data.decode() == f"1;{text}\n"
    assert file.notices == ["The file is not UTF-8: it is read as cp1252, as Excel in western Europe writes it."]


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "windows-1252", "iso-8859-1"])
def test_utf8_is_not_read_as_what_it_is_said_to_be(encoding):
    data = "age;job\n1;Célibataire\n2;Mariée\n".encode()
    for piece in (1, 1000):
        error = refusal(data, options=CsvOptions(encoding=encoding), piece=piece)
        assert "The file is UTF-8, not" in error.detail
        assert [fault.code for fault in error.faults] == ["encoding"]
    assert form(b"age;job\n1;x\n", options=CsvOptions(encoding=encoding)).encoding in (
        "cp1252",
        "latin-1",
    )  # all is ASCII


def test_signs_that_latin_1_does_not_have_are_not_read_as_control_characters():
    data = "age;job\n1;l’été à 5€\n".encode("cp1252")
    assert "give encoding=cp1252" in refusal(data, options=CsvOptions(encoding="latin-1")).detail


@pytest.mark.parametrize(
    ("codec", "encoding"),
    [
        ("utf-16-be", "utf-16be"),
        ("utf-16-be", "utf-16"),
        ("utf-16-le", "UTF-16LE"),
        ("utf-16-le", "utf-16"),
        ("utf-16", "utf-16-le"),
    ],
)
def test_utf16_is_read_in_its_own_order_of_bytes(codec, encoding):
    data = "age;job\n1;é😀\n".encode(codec)
    for piece in (1, 1000):
        assert body(data, options=CsvOptions(encoding=encoding), piece=piece).decode() == "1;é😀\n"


def test_mark_of_the_other_order_is_a_contradiction():
    assert code("age;job\n1;é\n".encode("utf-16"), options=CsvOptions(encoding="utf-16-be")) == "encoding"


# ── read otherwise than it is written ────────────────────────────────────────────────────────────────────────────


def test_blanks_behind_delimiters_are_left_out_and_those_in_quotes_are_kept():
    chunks, file = read(b'age, job\n1, chef\n2, " chef, \n""adjoint"" "\n3,\n4, a b \n')
    assert chunks[0].data == b'1,chef\n2," chef, \n""adjoint"" "\n3,\n4,a b \n'
    assert (chunks[0].row_count, file.row_count) == (4, 4)
    assert any("Blanks behind the delimiters were left out" in notice for notice in file.notices)


@pytest.mark.parametrize("rows", ["1, chef\n2,cook\n", '1," chef"\n', "1,\n2, \n"])
def test_blanks_that_do_not_stand_behind_every_delimiter_belong_to_the_cells(rows):
    chunks, file = read(f"age,job\n{rows}".encode())
    assert chunks[0].data == rows.encode()[: len(chunks[0].data)]
    assert not any("lanks" in notice for notice in file.notices)


def test_blanks_with_which_the_model_was_trained_are_kept():
    job = {"name": "job", "type": "string", "categories": [" chef", " cook"], "nullable": True}
    of = SMALL.model_copy(update={"features": [SMALL.features[0], Feature.model_validate(job)]})
    assert body(b"age, job\n1, chef\n", of=of) == b"1, chef\n"


def test_empty_rows_at_the_end_are_left_out_however_many():
    content = b"1,a\n,\n2,b\n" + b",\n" * 9_000 + b' , \r\n"",""\n\n,'
    for piece in (1, 1 << 20):
        chunks, file = read(b"age,job\n" + content, piece=piece)
        assert b"".join(chunk.data for chunk in chunks) == b"1,a\n,\n2,b\n"
        assert file.row_count == 3
        assert file.notices == ["9,003 empty rows at the end of the file were left out."]


def test_empty_rows_between_others_stay_rows():
    content = b"1,a\n" + b",\n" * 9_000 + b"2,b\n"
    chunks, file = read(b"age,job\n" + content)
    assert b"".join(chunk.data for chunk in chunks) == content
    assert file.row_count == sum(chunk.row_count for chunk in chunks) == 9_002
    assert [chunk.first_row for chunk in chunks] == [0, *accumulate(chunk.row_count for chunk in chunks[:-1])]


def test_header_is_found_below_a_title():
    chunks, file = read(b"Effectifs 2025;\n;\nau 31/12;\nage;job\n1;a\n")
    assert chunks[0].data == b"1;a\n"
    assert file.notices == ["The header is in line 4: the lines above it were left out."]


def test_columns_are_features_whatever_their_case():
    _, file = read(b"AGE;Job\n1;a\n")
    assert file.format.columns == ("age", "job")
    assert "'AGE' as 'age', 'Job' as 'job'" in file.notices[0]
    (fault,) = refusal(b"AGE;Age;job\n1;2;a\n").faults  # which of them?
    assert (fault.pointer, fault.code) == ("/columns/age", "missing")
    assert read(b"age;Age;job\n1;2;a\n")[1].format.columns == ("age", "Age", "job")


def test_column_of_values_that_the_model_does_not_know_is_told():
    job = {"name": "job", "type": "string", "categories": ["chef", "cook"], "nullable": True}
    of = SMALL.model_copy(update={"features": [SMALL.features[0], Feature.model_validate(job)]})
    assert read(b"age;job\n1;a\n2;cook\n3;b\n4;NA\n", of=of)[1].notices == [
        "2 of the first 3 values of 'job' are unknown to the model: check the column, and the encoding of the file."
    ]
    assert read(b"age;job\n1;a\n2;cook\n", of=of)[1].notices == []


def test_uppercase_and_dots_that_look_like_utf8_do_not_hide_cp1252():
    assert form("age;job\n1;CAFÉ…\n2;é\n3;à\n".encode("cp1252")).encoding == "cp1252"


def test_spoilt_byte_in_a_utf8_file_is_refused_with_its_row():
    data = "age;job\n1;é\n\n2;è\n3;à".encode() + b"\xff\n"
    for piece in (1, 1000):
        error = refusal(data, piece=piece)
        assert [(fault.pointer, fault.code) for fault in error.faults] == [("", "encoding")]
        assert "row 3 has bytes" in error.detail
        assert "encoding=cp1252" in error.detail


def test_row_of_a_spoilt_byte_is_counted_through_all_chunks():
    data = b"age;job\n" + '1;"é\n"\n'.encode() * 40_000 + b"2;\xe9\n"
    assert "row 40001 has bytes" in refusal(data, limits=replace(LIMITS, chunk_rows=100)).detail


def test_spoilt_header_is_named():
    assert "the header has bytes" in refusal(b"age;job\xff;x\n1;a\n", options=CsvOptions(encoding="utf-8")).detail
    assert "row 1 has bytes" in refusal(b"age;job\n\xff;x\n", options=CsvOptions(encoding="utf-8")).detail


def test_mark_of_another_encoding_than_the_given_one_is_refused():
    assert code(b"\xef\xbb\xbfage\n1\n", options=CsvOptions(encoding="cp1252")) == "encoding"
    assert code("age\n1\n".encode("utf-16"), options=CsvOptions(encoding="utf-8")) == "encoding"
    assert form(b"\xef\xbb\xbfage\n1\n", options=CsvOptions(encoding="utf-8")).bom


def test_utf16_cut_within_a_character_is_refused():
    assert code("age\n1\n".encode("utf-16") + b"\x00") == "encoding"


def test_utf16_with_half_a_pair_is_refused():
    assert code("age;job\n1;a\n".encode("utf-16") + b"\x00\xd8a\x00") == "encoding"


# Not a CSV, or an unusable one


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"PK\x03\x04\x14\x00\x06\x00[Content_Types].xml", "The Excel workbook cannot be read: it is damaged"),
        (b"PK\x03\x04\x14\x00\x06\x00rows.csv", "a ZIP archive"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "an image"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "an image"),
        (b"%PDF-1.7\n%\xe2\xe3", "a PDF document"),
        (b"PAR1\x15\x04\x15\x10", "Parquet"),
        (b"SQLite format 3\x00", "an SQLite database"),
        (b"\x28\xb5\x2f\xfd\x04\x00", "an archive"),
        (b' \n[{"age": 1}]', "a JSON document, not like CSV: send JSON rows to /predict_batch"),
        (b'\xef\xbb\xbf{"age": 1}\n', "a JSON document"),
        (b"<!DOCTYPE html><html>", "an HTML or XML document"),
        (b"\r\n<?xml version='1.0'?>", "an HTML or XML document"),
        (b"age,jo\x00b\n1,a\n", "NUL byte in its first line"),
        (b"\x00\x01\x02\x03" * 100, "NUL byte in its first line"),
        ("age\n1\n".encode("utf-32"), "UTF-32"),
        (gzip.compress(b"age\n1\n", mtime=0), "gzip within gzip"),
    ],
)
def test_other_kinds_of_files_are_recognised(data, words):
    for piece in (1, 1000):
        assert words in refusal(gzip.compress(data), UnsupportedMediaType, piece=piece).detail


def test_column_called_like_a_signature_is_a_column():
    assert form(b"PAR1,age\n1,2\n").columns == ("PAR1", "age")


@pytest.mark.parametrize("data", [b"", b"\n\r\n\n", b"  \n \t \n", b"\xef\xbb\xbf", b"\xff\xfe", b"\xef\xbb\xbf\r\n"])
def test_empty_file_is_refused(data):
    assert code(data) == "empty_file"


def test_single_byte_that_could_begin_gzip_is_not_waited_for():
    assert code(b"\x1f") == "empty_file"


@pytest.mark.parametrize("data", [b"age,job", b"age,job\r\n", b"age,job\n\n\r\n\n", b"\xef\xbb\xbfage\r"])
def test_header_alone_is_refused(data):
    assert code(data) == "no_rows"


def test_header_that_does_not_fit_is_refused_before_the_rest_arrives():
    file = UploadReader(ATTRITION, CsvOptions(), LIMITS)
    data = people(times=2).replace("poste,", "metier,", 1).encode()
    with pytest.raises(RowFaults) as caught:
        list(file.feed(data + b"\n" * (1 << 16)))
    assert [(fault.pointer, fault.code) for fault in caught.value.faults] == [("/columns/poste", "missing")]


def test_missing_header_is_refused():
    assert code(people().partition("\n")[2].encode(), of=ATTRITION) == "no_header"


@pytest.mark.parametrize("piece", [1, 1 << 16])
def test_quote_that_is_never_closed_is_refused_with_its_row(piece):
    error = refusal(b'age,job\n1,a\n\n2,"b\n3,c\n4,d', piece=piece)
    assert [fault.code for fault in error.faults] == ["unclosed_quote"]
    assert "a quote that opens in row 2 is never closed" in error.detail


def test_quote_that_is_never_closed_in_the_header_is_refused():
    assert code(b'age,"job\n1,a\n2,b\n') == "unclosed_quote"


def test_refusals_never_repeat_a_cell():
    for data in (
        b'age,job\n1,"secret\n',
        b"age,job\n1,secret\xc3\xa9\xff\n2,\xc3\xa9\xc3\xa9",
        b"age\n" + b"secret" * 200_000,
    ):
        with pytest.raises(GuichetError) as caught:
            read(data)
        assert "secret" not in caught.value.detail + str(caught.value.faults)


# Compressed


def test_gzip_is_recognised_and_counted_expanded():
    text = people().encode()
    chunks, file = read(gzip.compress(text), of=ATTRITION, piece=1)
    assert chunks == read(text, of=ATTRITION)[0]
    assert file.byte_count == len(text)


def test_gzip_of_several_members_is_one_file():
    text = people().encode()
    data = b"".join(gzip.compress(text[start : start + 1000]) for start in range(0, len(text), 1000))
    for piece in (1, 77, 1 << 20):
        assert body(data + b"\x00" * 512, of=ATTRITION, piece=piece) == body(text, of=ATTRITION)


@pytest.mark.parametrize("size", [2, 10, 15, 200, -8, -1])
def test_gzip_that_is_cut_off_is_refused(size):
    data = gzip.compress(people().encode())[:size]
    assert "cut off" in refusal(data, MalformedBody, of=ATTRITION).detail


def test_damaged_gzip_and_what_follows_it_are_refused():
    data = gzip.compress(b"age\n1\n")
    assert "damaged" in refusal(data[:-8] + b"\x00" * 8, MalformedBody).detail
    assert "damaged" in refusal(data + b"age\n1\n", MalformedBody).detail
    assert "damaged" in refusal(b"\x1f\x8b" + b"age\n1\n" * 10, MalformedBody).detail


def bomb(line, size):
    packer = zlib.compressobj(9, wbits=31)
    block = line * (1_000_000 // len(line))
    return b"".join([packer.compress(block) for _ in range(size // len(block))]) + packer.flush()


@pytest.mark.parametrize("line", [b"age\n", b"\x00", b"1,2\n" * 64])
def test_gzip_bomb_is_stopped_at_the_limit_without_being_held(line):
    data = gzip.compress(b"age,pay\n1,2\n") + bomb(line, 200_000_000)
    assert len(data) < 1_000_000
    tracemalloc.start()
    error = refusal(data, TooLarge, limits=replace(LIMITS, max_rows=1 << 40), piece=1 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    if b"," in line or b"\n" in line:
        assert "larger than 10000000 bytes" in error.detail
    else:
        assert "Row 2 is longer than 100000 bytes" in error.detail
    assert peak < 40_000_000  # chunks given out are kept by this test


# Limits


def test_file_of_just_the_limit_is_taken_and_one_byte_more_is_not():
    data = b"age\n1\n2\n"
    assert read(data, limits=replace(LIMITS, max_bytes=len(data)))[1].row_count == 2
    assert "larger than 7 bytes" in refusal(data, TooLarge, limits=replace(LIMITS, max_bytes=7)).detail


def test_file_with_too_many_rows_is_refused():
    data = b"age\n" + b"1\n\n" * 10
    assert read(data, limits=replace(LIMITS, max_rows=10))[1].row_count == 10
    assert "more than 9 rows" in refusal(data, TooLarge, limits=replace(LIMITS, max_rows=9)).detail


def test_endless_line_is_refused_as_soon_as_it_is_too_long():
    file = UploadReader(SMALL, CsvOptions(), LIMITS)
    list(file.feed(b"age,job\n1,a\n"))
    with pytest.raises(TooLarge, match="Row 2 is longer than 100000 bytes"):
        any(list(file.feed(b"x" * 16_384)) for _ in range(6000))
    assert file.byte_count < 2_000_000


def test_endless_header_is_refused():
    assert "The header is longer than" in refusal(b"age," + b"x" * 120_000, TooLarge).detail
    columns = b"age," + b"x,y," * 100_000
    assert "The header is longer than" in refusal(columns, TooLarge).detail
    quoted = b'age,"' + b"x" * 200_000
    assert (
        "quote is never closed" in refusal(quoted, TooLarge, limits=replace(LIMITS, max_record_bytes=1_000_000)).detail
    )


def test_record_larger_than_a_chunk_stands_alone():
    long = b'2,"' + b"x\n" * 1000 + b'"\n'
    chunks, _ = read(b"age,job\n1,a\n" + long + b"3,c\n4,d\n", limits=replace(LIMITS, chunk_bytes=100))
    assert [chunk.data for chunk in chunks] == [b"1,a\n", long, b"3,c\n4,d\n"]
    assert [(chunk.first_row, chunk.row_count) for chunk in chunks] == [(0, 1), (1, 1), (2, 2)]


def test_chunks_hold_at_most_so_many_rows_and_bytes():
    data = people(times=300).encode()
    chunks, file = read(data, of=ATTRITION, limits=replace(LIMITS, chunk_bytes=100_000, chunk_rows=450))
    assert file.row_count == 300 * len(PEOPLE)
    assert all(chunk.row_count <= 450 and len(chunk.data) <= 100_000 for chunk in chunks)
    assert all(chunk.row_count == 450 or len(chunk.data) > 95_000 for chunk in chunks[:-1])
    assert all(left.first_row + left.row_count == right.first_row for left, right in pairwise(chunks))


def test_chunk_is_cut_again_at_its_records():
    data = b'1,"a\n"\n\n2,b\r\n3,c\n4,d\n5,e'
    assert split_chunk(data, ",", rows=2) == [
        Chunk(0, 2, b'1,"a\n"\n\n2,b\r\n'),
        Chunk(2, 2, b"3,c\n4,d\n"),
        Chunk(4, 1, b"5,e"),
    ]


# Properties

ALPHABET = st.sampled_from(
    ['"', '"', '"', ";", ";", "\n", "\n", "\r", "\r\n", "a", "é", " ", ",", "\n\n", '""', ';"', '";']
)
TEXTS = st.lists(ALPHABET, max_size=60).map("".join)
HEADER = "age;job\n"


def attempt(data, cuts=(), **options):
    """Return the chunks and the format, or the refusal, of a file that arrives in pieces that end at `cuts`."""
    file = UploadReader(SMALL, CsvOptions(), replace(LIMITS, **options))
    chunks = []
    try:
        for start, end in pairwise([0, *sorted(cuts), len(data)]):
            chunks += file.feed(data[start:end])
        return [*chunks, *file.finish()], (file.format, file.notices)
    except GuichetError as error:
        return type(error), error.detail, error.faults


def bare_line(record):
    """A record, but for how many blanks a line of nothing else has."""
    return [""] if len(record) == 1 and not record[0].strip(" ") else record


@given(TEXTS)
@settings(max_examples=500)
@example('"')
@example('""')
@example('a;"b"c";d\n"x\n";y\n')
@example('";"\r\n";"')
@example('; ""')
def test_rows_are_those_of_the_csv_module_and_of_pyarrow(text):
    import pyarrow.csv

    outcome = attempt((HEADER + text).encode(), chunk_rows=3, chunk_bytes=40)
    expected = [record for record in csv.reader(io.StringIO(text, newline=""), delimiter=";") if record]
    without_blanks = csv.reader(io.StringIO(text, newline=""), delimiter=";", skipinitialspace=True)
    full = [record for record in without_blanks if "".join(record).strip()]
    if isinstance(outcome[0], type):
        (fault,) = outcome[2]
        if fault.code == "columns":
            assert [len(record) for record in expected[:2]] == [3, 3]
        else:
            assert fault.code == "unclosed_quote" or (fault.code == "no_rows" and not full)
        return
    chunks, (_, notices) = outcome
    if any("Blanks" in notice for notice in notices):
        lines = io.StringIO(text, newline="")
        expected = [record for record in csv.reader(lines, delimiter=";", skipinitialspace=True) if record]
    count = sum(chunk.row_count for chunk in chunks)
    assert not "".join(chain(*expected[count:])).strip()  # empty rows at the end
    assert "".join(expected[count - 1])
    for chunk in chunks:
        records = expected[chunk.first_row : chunk.first_row + chunk.row_count]
        lines = io.StringIO(chunk.data.decode(), newline="")
        filled = [record for record in csv.reader(lines, delimiter=";") if record]
        assert list(map(bare_line, filled)) == list(map(bare_line, records))
        ragged = []
        table = pyarrow.csv.read_csv(
            io.BytesIO(chunk.data),
            read_options=pyarrow.csv.ReadOptions(column_names=["x", "y"], use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=";",
                newlines_in_values=True,
                invalid_row_handler=lambda row, ragged=ragged: ragged.append(row.actual_columns) or "skip",
            ),
        )
        assert table.num_rows + len(ragged) == chunk.row_count
        assert ragged == [len(record) for record in records if len(record) != 2]


@given(TEXTS, st.data())
@settings(max_examples=300)
def test_pieces_in_which_a_file_arrives_make_no_difference(text, data):
    encoded = (HEADER + text).encode(data.draw(st.sampled_from(["utf-8", "cp1252", "utf-16", "utf-8-sig"])))
    if data.draw(st.booleans()):
        encoded = gzip.compress(encoded[:20]) + gzip.compress(encoded[20:])
    encoded = encoded[: data.draw(st.integers(0, len(encoded)))] if data.draw(st.booleans()) else encoded
    options = {"chunk_rows": data.draw(st.integers(1, 5)), "chunk_bytes": data.draw(st.integers(1, 60))}
    options |= {
        "max_record_bytes": data.draw(st.sampled_from([12, 1000])),
        "max_rows": data.draw(st.sampled_from([3, 99])),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared.csv.uploads.reader, "HEAD_BYTES", data.draw(st.sampled_from([16, 1 << 16])))
        patch.setattr(shared.csv.uploads.decoding, "DECISION_BYTES", data.draw(st.sampled_from([1, 5, 1 << 16])))
        whole = attempt(encoded, **options)
        assert attempt(encoded, range(1, len(encoded)), **options) == whole
        assert attempt(encoded, data.draw(st.sets(st.integers(0, len(encoded)))), **options) == whole


@given(TEXTS, st.integers(1, 4), st.integers(1, 50))
def test_chunks_are_the_file_but_for_blank_lines(text, chunk_rows, chunk_bytes):
    outcome = attempt((HEADER + text).encode(), chunk_rows=chunk_rows, chunk_bytes=chunk_bytes)
    if isinstance(outcome[0], type):
        return
    chunks, (_, notices) = outcome
    if any("Blanks" in notice for notice in notices):
        return
    rest = text.encode()
    for chunk in chunks:
        before, match, rest = rest.partition(chunk.data)
        assert match
        assert not before.strip(b"\r\n")
        assert 1 <= chunk.row_count <= chunk_rows
        assert len(chunk.data) <= chunk_bytes or len(split_chunk(chunk.data, ";", rows=1)) == 1
    assert not rest.replace(b'""', b"").strip(b"\r\n; ")  # empty rows


@given(st.binary(max_size=200), st.integers(1, 50))
def test_no_bytes_get_anything_but_rows_or_a_refusal(data, piece):
    prefix = b"age;job\n1;" if piece % 2 else b""
    attempt(prefix + data, range(piece, len(prefix + data), piece))


def test_header_without_a_name_for_the_row_names_is_refused():
    """R's write.table leaves it out: every row would have one cell too many."""
    names = ",".join(feature.name for feature in card().features)
    row = ",".join(["1"] * (names.count(",") + 2))
    with pytest.raises(RowFaults, match="name the first column"):
        read((names + "\n" + f"{row}\n" * 3).encode())

"""What the console is made of: its catalogue, the cookie of a session, what a browser loads, and forms as rows."""

import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from jinja2 import meta

from api.auth.callers import make_key
from api.console import assets, session
from api.console.forms import fault_places, row_of, value_of
from api.console.language import LANGUAGES, Words, catalogue
from api.console.rendering import environment
from api.console.snippets import curl, python
from shared.reasons import SENTENCES, Reason, Value

ROOT = Path(__file__).resolve().parents[3]
CONSOLE = ROOT / "api" / "console"
TEMPLATES = sorted((CONSOLE / "templates").glob("*.html"))


# ── the catalogue ────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_text_is_there_in_every_language_with_the_same_values() -> None:
    assert len(catalogue()) > 200
    for key, texts in catalogue().items():
        assert len(texts) == len(LANGUAGES)
        assert all(texts), key
        english, french = (sorted(re.findall(r"{(\w+)}", text)) for text in texts)
        assert english == french, key


def test_pages_and_catalogue_name_the_same_texts() -> None:
    sources = "".join(path.read_text() for path in (*TEMPLATES, *CONSOLE.glob("*.py")))
    used = set(re.findall(r"""["']([a-z_]+\.[a-z_0-9]+)["']""", sources))
    begun = tuple(set(re.findall(r"t\('([a-z_.]+)' ~", sources)) | {"problem.title_", "unit.", "cause."})
    named = {key: re.sub("_(one|other)$", "", key) for key in catalogue()}
    left_over = [key for key, noun in named.items() if not {key, noun} & used and not key.startswith(begun)]
    assert left_over == []
    called = set(re.findall(r"""\bt(?:\.count)?\('([a-z_]+\.[a-z_0-9]+)'[,)]""", sources))
    assert len(called) > 150
    assert called - set(named) - set(named.values()) == set()


def test_every_cause_of_bad_health_has_its_text_and_the_english_one_is_that_of_the_service() -> None:
    others = {"and_wait_one", "and_wait_other", "because"}
    texts = {key.partition(".")[2]: text for key, (text, _) in catalogue().items() if key.startswith("cause.")}
    assert {code: text for code, text in texts.items() if code not in others} == SENTENCES


@pytest.mark.parametrize("code", SENTENCES)
def test_reason_is_written_in_french_with_all_its_values(code: str) -> None:
    names = re.findall(r"{(\w+)}", SENTENCES[code])
    values = {name: 3 if name == "waiting" else f"<{name}>" for name in names}
    reason = Reason(code, **values)
    french = Words("fr").reason(reason, {"code": code, "values": values})
    text = "".join(part for part, _ in french)
    assert [name for name in names if name != "waiting" and f"<{name}>" not in text] == []
    assert ("3 jobs" in text) == ("waiting" in names) == ("3 jobs wait" in reason)
    assert [part for part, is_english in french if is_english] == (["<detail>"] if "detail" in names else [])
    assert Words("en").reason(reason, {"code": code, "values": values}) == [(reason, False)]


def test_reason_without_a_code_stays_english() -> None:
    assert Words("fr").reason("s3://shelf is silent.", None) == [("s3://shelf is silent.", True)]


def test_reason_counts_waiting_jobs_and_ends_where_nothing_is_to_be_added() -> None:
    def written(code: str, **values: Value) -> tuple[str, str]:
        parts = Words("fr").reason("", {"code": code, "values": values})
        return Reason(code, **values), "".join(text for text, _ in parts)

    assert written("no_worker", waiting=0) == (
        "No worker has been heard of for 20 seconds.",
        "Aucun worker ne s’est manifesté depuis 20 secondes.",
    )
    assert written("no_worker", waiting=1) == (
        "No worker has been heard of for 20 seconds, and 1 job waits.",
        "Aucun worker ne s’est manifesté depuis 20 secondes, et 1 job attend.",
    )
    assert written("model_refused", model="m@1", detail=None) == (
        "m@1 cannot be loaded.",
        "m@1 ne peut pas être chargé.",
    )
    assert written("model_refused", model="m@1", detail="it is gone.") == (
        "m@1 cannot be loaded: it is gone.",
        "m@1 ne peut pas être chargé\u00a0: it is gone.",
    )


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_template_holds_no_code_and_no_style(path: Path) -> None:
    text = path.read_text()
    environment().parse(text)
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:|hx-on|hx-vals='?js|\[.*\]\s*from", text)
    for script in re.findall(r"<script\b([^>]*)>(.*?)</script>", text, re.S):
        assert "src=" in script[0]
        assert script[1] == ""
    assert not re.search(r"https?://(?!www\.w3\.org)", text), "nothing comes from another server"
    assert "|safe" not in text.replace(" ", "")


def test_whatever_a_page_is_given_is_escaped() -> None:
    text = environment().from_string("{{ value }}").render(value="<script>alert(1)</script>")
    assert "<script>" not in text
    assert meta.find_undeclared_variables(environment().parse("{{ a }}")) == {"a"}


def test_numbers_and_times_are_written_as_their_language_does() -> None:
    english, french = Words("en"), Words("fr")
    assert (english.number(1234567), french.number(1234567)) == ("1,234,567", "1\u202f234\u202f567")
    assert (english.number(0.125), french.number(0.125)) == ("0.125", "0,125")
    assert english.number(None) == "–"
    assert (english.percent(0.795), french.percent(0.795)) == ("79.5%", "79,5\u202f%")
    assert [english.duration(seconds) for seconds in (0.012, 3.21, 600, 9_000)] == ["12 ms", "3.2 s", "10 min", "2.5 h"]
    assert english.moment("2026-01-02T03:04:05.678Z") == "2026-01-02 03:04:05"
    assert [english.count("predict.faults", number) for number in (0, 1, 2)] == ["0 faults:", "1 fault:", "2 faults:"]
    counted = [french.count("predict.faults", number) for number in (0, 1, 2)]
    assert counted == ["0 erreur\u00a0:", "1 erreur\u00a0:", "2 erreurs\u00a0:"]


# ── sessions ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_session_holds_its_key_until_its_end() -> None:
    key, _ = make_key()
    now = time.time()
    value = session.seal(key, now=now)
    assert re.fullmatch(r"[A-Za-z0-9._-]+", value), "a cookie's value needs no quotes"
    assert session.unseal(value, now=now) == session.Session(key)
    assert session.unseal(value, now=now + session.SECONDS - 2) == session.Session(key)
    assert session.unseal(value, now=now + session.SECONDS + 1) == session.Session(has_ended=True)
    assert session.unseal("", now=now) == session.Session()


def test_session_that_was_altered_has_ended() -> None:
    key, _ = make_key()
    other, _ = make_key()
    now = time.time()
    end, signature, _ = session.seal(key, now=now).split(".")
    later = str(int(end) + 1_000_000)
    for value in (
        f"{later}.{signature}.{key}",
        f"{end}.{signature}.{other}",
        f"{end}.{'0' * 32}.{key}",
        f"{end}..{key}",
        f"{end}.{signature}.",
        f"{'9' * 400}.{signature}.{key}",
        f"²².{signature}.{key}",
        key,
        "..",
        "é.é.é",
    ):
        assert session.unseal(value, now=now) == session.Session(has_ended=True), value


# ── what a browser loads ─────────────────────────────────────────────────────────────────────────────────────────


def test_vendored_file_is_the_one_of_its_package() -> None:
    vendored = json.loads((CONSOLE / "static" / "vendored.json").read_text())
    assert vendored.keys() == {"htmx.min.js"}
    for name, source in vendored.items():
        assert hashlib.sha256((CONSOLE / "static" / name).read_bytes()).hexdigest() == source["sha256"]
        assert source.keys() == {"package", "version", "file", "integrity", "license", "sha256"}


def test_every_file_that_is_served_is_there_and_no_other() -> None:
    there = {path.name for path in (CONSOLE / "static").iterdir()}
    assert there == {*assets.TYPES, "vendored.json"}
    for name in assets.TYPES:
        assert hashlib.sha256(assets.asset(name).content).hexdigest().startswith(assets.asset(name).digest)


def test_first_view_takes_less_than_100_kb() -> None:
    assert sum(len(assets.asset(name).compressed) for name in assets.TYPES) < 60_000


# ── forms ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("integer", "35", 35),
        ("integer", "35.0", 35),
        ("integer", "1 234", 1234),
        ("integer", "many", "many"),
        ("number", "0.5", 0.5),
        ("number", "0,5", 0.5),
        ("number", "-1e3", -1000),
        ("number", "1e999", "1e999"),
        ("number", "nan", "nan"),
        ("number", "1,234,567", "1,234,567"),
        ("number", "1,234.5", "1,234.5"),
        ("boolean", "true", True),
        ("boolean", "false", False),
        ("boolean", "perhaps", "perhaps"),
        ("string", "35", "35"),
    ],
)
def test_text_of_a_field_becomes_the_value_that_it_means(kind: str, text: str, value: Any) -> None:
    read = value_of({"type": kind}, text)
    assert (read, type(read)) == (value, type(value))


def test_category_keeps_its_own_type() -> None:
    assert value_of({"type": "integer", "categories": [1, 2]}, "2") == 2
    assert value_of({"type": "boolean", "categories": [True, False]}, "true") is True
    assert value_of({"type": "string", "categories": ["1", "2"]}, "2") == "2"


def test_empty_field_is_null_where_the_model_knows_null_and_else_left_out() -> None:
    features = [
        {"name": "a", "type": "number", "nullable": True},
        {"name": "b", "type": "number", "nullable": False, "required": True},
        {"name": "c", "type": "number", "nullable": False, "required": False},
        {"name": "d", "type": "number", "nullable": True, "default": 3},
    ]
    assert row_of(features, {"f:a": "", "f:b": " ", "x": "1"}) == {"a": None}
    assert row_of(features, {"f:a": "1", "f:b": "2", "f:c": "3", "f:d": "4"}) == {"a": 1, "b": 2, "c": 3, "d": 4}


def test_faults_find_their_fields() -> None:
    def fault(pointer: str) -> dict[str, str]:
        return {"pointer": pointer, "code": "type", "message": "must be a number"}

    wrapped = [fault("/features/a"), fault("/features/b~1c"), fault("/features"), fault("/nonsense"), fault("")]
    by_feature, others = fault_places(wrapped, wrapper="features")
    assert by_feature.keys() == {"a", "b/c"}
    assert [one["pointer"] for one in others] == ["/features", "/nonsense", ""]
    assert fault_places([fault("/a"), fault("")], wrapper=None)[0].keys() == {"a"}


def test_snippets_survive_quotes_and_name_no_key() -> None:
    body = {"features": {"name": 'l\'été "x" $HOME `id`', "none": None, "yes": True}}
    command = curl("http://x/models/m/predict", body, needs_key=True)
    assert "$GUICHET_KEY" in command
    assert "'\"'\"'" in command
    program = python("http://x/models/m/predict", body, needs_key=False)
    compile(program, "snippet", "exec")
    assert "GUICHET_KEY" not in program
    assert "'none': None" in program

"""The languages of the console: one catalogue (words.toml) with every text in English and in French."""

import tomllib
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from starlette.requests import Request

from api.http.conditional import parse_accept

LANGUAGES = ("en", "fr")
COOKIE = "guichet_language"
PARAMETER = "lang"  # of a page's address: the switch
_MARK = "\x00"  # the place of a text that stays English
CATALOGUE = Path(__file__).with_name("words.toml")


@cache
def catalogue() -> dict[str, tuple[str, str]]:
    """Return every text by its key, `section.name`, in the order of LANGUAGES."""
    sections = tomllib.loads(CATALOGUE.read_text(encoding="utf-8"))
    return {
        f"{section}.{name}": (texts[0], texts[1])
        for section, entries in sections.items()
        for name, texts in entries.items()
    }


class Words:
    """The texts of one language, and how it writes numbers and times."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._place = LANGUAGES.index(language)

    def __call__(self, key: str, **values: object) -> str:
        """Return a text with its values; raise KeyError for a key that the catalogue does not have."""
        return catalogue()[key][self._place].format(**values)

    def has(self, key: str) -> bool:
        """Tell whether the catalogue has a key."""
        return key in catalogue()

    def count(self, key: str, number: int) -> str:
        """Return a number with its noun, in the singular (`KEY_one`) or the plural (`KEY_other`)."""
        is_one = number == 1 or (number == 0 and self.language == "fr")
        return self(f"{key}_{'one' if is_one else 'other'}", n=self.number(number))

    def reason(self, sentence: str, cause: dict[str, Any] | None) -> list[tuple[str, bool]]:
        """Return a reason of /health in this language, in parts: each with whether it is English all the same."""
        if self.language == "en" or cause is None:
            return [(sentence, self.language != "en")]
        values = dict(cause["values"])
        if waiting := values.get("waiting"):
            values["waiting"] = self.count("cause.and_wait", waiting)
        elif "waiting" in values:
            values["waiting"] = ""
        detail = values.pop("detail", None)
        before, mark, after = self(f"cause.{cause['code']}", detail=_MARK, **values).partition(_MARK)
        if not mark or not detail:
            return [(f"{before}.{after}" if mark else before, False)]
        colon, _, _ = self("cause.because", detail=_MARK).partition(_MARK)
        return [(before + colon, False), (detail, True), (after, False)]

    def number(self, value: float | None, digits: int = 3) -> str:
        """Return a number with so many decimals at most, as the language writes it; a dash for none."""
        if value is None:
            return "–"
        text = f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"
        if "." in text:
            text = text.rstrip("0").rstrip(".")
        return text if self.language == "en" else text.replace(",", "\u202f").replace(".", ",")

    def percent(self, share: float | None) -> str:
        """Return a share (0 to 1) as a percentage."""
        if share is None:
            return "–"
        return f"{self.number(share * 100, 1)}{'%' if self.language == 'en' else chr(0x202F) + '%'}"

    def bytes(self, size: int) -> str:
        """Return a size in the decimal unit in which it reads best."""
        letter = "B" if self.language == "en" else "o"
        for unit, factor in (("G", 1_000_000_000), ("M", 1_000_000), ("k", 1_000)):
            if size >= factor:
                return f"{self.number(size / factor, 1)}\u00a0{unit}{letter}"
        return f"{size}\u00a0{letter}"

    def duration(self, seconds: float | None) -> str:
        """Return a length of time in the unit in which it reads best."""
        if seconds is None:
            return "–"
        if seconds < 1:
            return f"{self.number(seconds * 1000, 0)} ms"
        if seconds < 120:
            return f"{self.number(seconds, 1)} s"
        if seconds < 7_200:
            return f"{self.number(seconds / 60, 0)} min"
        if seconds < 172_800:
            return f"{self.number(seconds / 3_600, 1)} h"
        return f"{self.number(seconds / 86_400, 1)} {self('unit.days')}"

    def moment(self, text: str | None) -> str:
        """Return a time of the service (RFC 3339) to the second, in UTC, for where UTC stands beside it."""
        return "–" if text is None else f"{read_moment(text):%Y-%m-%d %H:%M:%S}"

    def exact(self, text: str | None) -> str:
        """Return a time of the service to the second, and that it is in UTC."""
        return "–" if text is None else f"{self.moment(text)} UTC"

    def ago(self, text: str | None) -> str:
        """Return how long ago a time of the service was."""
        if text is None:
            return "–"
        return self("unit.ago", time=self.duration(max((datetime.now(UTC) - read_moment(text)).total_seconds(), 1.0)))


def read_moment(text: str) -> datetime:
    """Return a time of the service as a datetime in UTC."""
    return datetime.fromisoformat(text).astimezone(UTC)


def seconds_between(start: str | None, end: str | None) -> float | None:
    """Return the seconds between two times of the service, None where one of them is not known."""
    if start is None or end is None:
        return None
    return (read_moment(end) - read_moment(start)).total_seconds()


def language_of(request: Request) -> str:
    """Return the language of a page: that of its address, else of the cookie of the switch, else of Accept-Language."""
    for choice in (request.query_params.get(PARAMETER), request.cookies.get(COOKIE)):
        if choice in LANGUAGES:
            return choice
    qualities: dict[str, float] = {}
    for name, quality in parse_accept(request.headers.get("accept-language", "")).items():
        language = name.partition("-")[0]
        qualities[language] = max(quality, qualities.get(language, 0.0))
    return max(LANGUAGES, key=lambda language: qualities.get(language, 0.0))


def example_of(value: Any) -> str:  # noqa: ANN401 - any JSON scalar
    """Return a value of a row as it is written into a field of a form."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)

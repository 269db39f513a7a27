"""Faults: place, code and advice for each error in a request, and the sentence that sums them up."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

FIRST = 3  # faults, or names, that a sentence spells out
POINTER_LENGTH = 100  # characters of a pointer to a name that the caller made up
COMPARED = 200  # characters of a name for which a close match is searched


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a request: where (RFC 6901 JSON pointer), which kind, and what to do."""

    pointer: str
    code: str
    message: str

    def under(self, prefix: str) -> "Fault":
        """Return the same fault below another place of the body, e.g. `/rows/3`."""
        return type(self)(prefix + self.pointer, self.code, self.message)

    def clause(self) -> str:
        """Return the fault as a sentence without its end: the name that it points to, and the message."""
        return self.message if self.code == "rule" else f"{unpointer(self.pointer)[-1]} {self.message}".strip()

    def located(self) -> str:
        """Return the fault as a sentence without its end that names the whole place: `/rows/3/age must be ...`."""
        return f"{self.pointer} {self.message}".strip()


@dataclass(frozen=True, slots=True)
class OwnWords(Fault):
    """A fault whose message is a complete sentence from the card: no name is put before it."""

    def clause(self) -> str:
        """Return the message alone."""
        return self.message

    def located(self) -> str:
        """Return the message behind its place."""
        return f"{self.pointer}: {self.message}" if self.pointer else self.message


def sentence(
    faults: Sequence[Fault],
    *,
    subject: str,
    count: int = 0,
    tell: Callable[[Fault], str] = lambda fault: fault.clause(),
    is_lower_bound: bool = False,
) -> str:
    """Return faults as one sentence: `subject`, the first three faults, and the number of the others.

    `count` is the number of all faults if `faults` holds only some of them; `is_lower_bound`: there may be more.
    """
    parts = [tell(fault) for fault in faults[:FIRST]]
    more = max(count, len(faults)) - len(parts)
    if more > 0:
        parts.append(f"and {'at least ' if is_lower_bound else ''}{more} more")
    text = f"{subject}: {'; '.join(parts)}"
    return text if text.endswith((".", "!", "?")) else f"{text}."


def few(names: Iterable[object], most: int = FIRST) -> str:
    """Return the first names with commas between, and the number of the others."""
    texts = list(map(str, names))
    more = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {more} more" if more > 0 else "")


def storable(text: str, length: int) -> str:
    """Return the beginning of a text, without what no database stores (NUL, lone surrogates)."""
    return text[:length].replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 row`, `1,200 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def pointer(*steps: str | int) -> str:
    """Return the JSON pointer (RFC 6901) to a value: `pointer("rows", 3, "a/b")` is `/rows/3/a~1b`."""
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in steps)


def pointer_to_unknown(key: str) -> str:
    """Return the pointer of a key that the caller made up: at most 100 characters, always UTF-8."""
    text = key[:POINTER_LENGTH].encode("utf-8", "replace").decode("utf-8")
    return pointer(text)[:POINTER_LENGTH].removesuffix("~")  # a cut escape would not be a pointer


def unpointer(text: str) -> list[str]:
    """Return the steps of a JSON pointer; one empty step for the whole document."""
    return [step.replace("~1", "/").replace("~0", "~") for step in text.split("/")[1:]] or [""]


def closest(name: str, names: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the closest known name, in any case of letters, or None.

    The search is slow: callers search only a few names for one request.
    """
    by_lower = {spelling.lower(): spelling for spelling in names}
    close = get_close_matches(name[:COMPARED].lower(), by_lower, 1, cutoff)
    return by_lower[close[0]] if close else None


def did_you_mean(name: str, names: Iterable[str], *, otherwise: str = "remove it") -> str:
    """Return a question with the closest name, or `otherwise` if no name is close."""
    close = closest(name, names)
    return otherwise if close is None else f'did you mean "{close}"?'

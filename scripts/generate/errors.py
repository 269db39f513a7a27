"""`make errors`: write docs/errors.md from the error tree of shared/errors.py; a test holds it current.

What a caller can do about each code stands here: it is advice for people, and no process needs it.
"""

import sys
from collections.abc import Iterator

from scripts.checkout import ROOT, write_page
from shared.errors import GuichetError

FILE = ROOT / "docs" / "errors.md"
_BEFORE = """# Errors by code

`make errors` writes this page from `shared/errors.py`. An answer that is no success is a problem document (RFC 9457):

```
{"type":"urn:guichet:error:invalid_row","title":"The request does not fit the model","status":422,
 "detail":…,"instance":"/jobs","request_id":…,"errors":[{"pointer":"/features/age","code":"range","message":…}]}
```

The code is the last part of `type`. `detail` says what happened and what to do in this case, `errors` lists every fault
with its place as a JSON pointer. `request_id` is in the logs of the service: give it to the operator.
A model whose card has words of its own answers in these words ([clients.md](clients.md)), and so do the Open Inference
Protocol and MLflow's; `Accept: application/vnd.guichet+json` asks a model for the problem document.

## Codes

| code | status | cause | cure |
|---|---|---|---|
"""
_AFTER = """
An answer without one of these codes comes from below the routes: a method or path that the service does not have, or a
request that is no valid HTTP. Its code is the reason phrase of its status, such as `method_not_allowed` for 405.

## When to send a request again

Send it again after 429 and 503, once the seconds of `Retry-After` are over, and after a broken connection. With an
`Idempotency-Key`, it makes one job however often it is sent. The `guichet` command and its Python package do both by
themselves. After any other 4xx, the same request gets the same answer: change it first.

## Codes of a job

`GET /jobs/{id}` of a job without a result has an `error` with a code of its own:

| code | cause | cure |
|---|---|---|
| `expired` | the job queued longer than its `expires_in` allowed | allow more time, or ask the operator for more workers |
| `timeout` | the job ran longer than its `timeout` | allow more time, or send fewer rows in one job |
| `worker_lost` | each worker that tried the job died or went silent | a row may crash the model: send the rows one by one to learn which |
| `out_of_memory` | the model needed more memory than the worker may use | send fewer rows in one job, or ask the operator for more memory |
| `too_many_errors` | more rows of the file were bad than `max_error_rate` allows | read `errors.csv` of the job, and correct the file |

## Codes of a fault

Each entry of `errors`, and each line of `errors.csv`, says by its code what is wrong with one value:

| code | cause | cure |
|---|---|---|
| `missing` | a feature that the model needs is absent | give it |
| `null` | a feature that must not be null is null | give a value |
| `type` | the value has another type than the feature | send a number as a number, text as text |
| `range` | the number is outside the feature's bounds | correct it; `GET /models/{name}` lists the bounds |
| `category` | the value is none of the feature's categories | use one that the message lists |
| `length` | the text or the list is too long or too short | shorten it, or split the request |
| `unknown_feature` | the model has no such feature | correct the spelling that the message proposes, or remove it |
| `rule` | several features contradict each other by a rule of the card | correct the one that is wrong |
| `not_an_object` | the row is no object of feature names and values | send an object |
| `more_faults` | more faults of the row were counted, and not listed | correct those that are listed, and send the row again |
| `empty_row` | the line of the file is empty | remove it |
| `columns` | the line has more or fewer cells than the header | look for a delimiter or a quote within a cell |
"""  # noqa: E501 - rows of tables
CURES = {
    "internal_error": "It is a fault of the service: report it with its `request_id`.",
    "malformed_body": "Send valid JSON in UTF-8, or a whole form or file, as `detail` says.",
    "unauthorized": "Send `Authorization: Bearer guichet_...` with a key that the operator made.",
    "forbidden": "Ask the operator for a key with the scope that `detail` names.",
    "not_found": "Check the id or name. A job is visible to the key that submitted it, and to `admin` keys.",
    "not_acceptable": "Ask for a type that `detail` lists, or leave `Accept` out.",
    "request_timeout": "Send the body faster, or in smaller parts.",
    "conflict": "Read the present state (`GET`), and do what `detail` says.",
    "gone": "Nothing is left of the job: send its rows again if you need their scores.",
    "precondition_failed": "Read the object again, and send its new `ETag` as `If-Match`.",
    "too_large": "Split the rows over several requests, or send them as a CSV file.",
    "unsupported_media_type": "Set `Content-Type` to a type that `detail` names.",
    "range_not_satisfiable": "Leave `Range` out, or begin within the file.",
    "invalid_row": "Correct every fault in `errors`; the codes of faults are below.",
    "refused_by_model": "Correct the values that `detail` names: the card allows them, but the model does not.",
    "not_explainable": "Ask for another model or version; the score itself is valid.",
    "invalid_request": "Correct the parameters that `errors` points to.",
    "idempotency_mismatch": "Use a new key or id for another body.",
    "too_many_requests": "Wait as long as `Retry-After` says, then send it again.",
    "model_failed": "Try the row with other values, and tell the owner of the model.",
    "unavailable": "Wait as long as `Retry-After` says, then send it again.",
    "job_timeout": "Send it again with a longer `timeout`, or with fewer rows.",
    "model_error": "Ask the operator to run `python -m shared.registry verify NAME`.",
    "card_error": "Correct the card or the file that `detail` names, and add the model again.",
    "artefact_error": "Do what `detail` says: install what is missing, or add the model again.",
}


def kinds_of(kind: type[GuichetError] = GuichetError) -> Iterator[type[GuichetError]]:
    """Yield an error and everything below it in the tree."""
    yield kind
    for child in kind.__subclasses__():
        yield from kinds_of(child)


def render() -> str:
    """Return the page."""
    kinds = sorted(kinds_of(), key=lambda kind: kind.status)
    rows = [f"| `{kind.code}` | {kind.status} | {_cause(kind)} | {CURES[kind.code]} |" for kind in kinds]
    return _BEFORE + "\n".join(rows) + "\n" + _AFTER


def _cause(kind: type[GuichetError]) -> str:
    if kind is GuichetError:
        return "An unexpected failure of the service."
    return (kind.__doc__ or "").strip().replace("|", "\\|")


def main() -> int:
    """Write the page; with `--print`, only show it."""
    return write_page(FILE, render())


if __name__ == "__main__":
    sys.exit(main())

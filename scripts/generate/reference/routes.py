"""`make routes`: write docs/routes from the OpenAPI document and from requests.toml; a test holds the pages current.

The examples are sent to a running service of each runtime by tests/contracts/test_routes.py, as they stand here.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from scripts.checkout import ROOT

FOLDER = ROOT / "docs" / "routes"
EXAMPLES = Path(__file__).with_name("requests.toml")
ADDRESS = "http://127.0.0.1:8000"
NAMES = {  # what stands for what in the examples; a test gives them their values
    "KEY": "the header of a key with the scope `admin`: `Authorization: Bearer guichet_...`",
    "JOB": "the id of a job with one row",
    "BATCH": "the id of a job with two rows",
    "FILE": "the id of a CSV job",
    "QUEUED": "the id of a CSV job that no worker has begun",
    "ALERT": "the id of an open alert",
    "KEY_ID": "the id of another key",
}
PREPARE = """import joblib
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from examples.churn.data import generate

customers = generate(400)
customers.to_csv("churn.csv", index=False)
numbers = customers[["months", "monthly_fee", "support_calls", "data_gb"]]
model = make_pipeline(StandardScaler(), LogisticRegression()).fit(numbers, customers["left"])
joblib.dump(model, "churn.joblib")
"""
_BEFORE = """# Routes

`make routes` writes these pages from the OpenAPI document, which a running service has at `/openapi.json`, and for
people at `/docs` and `/redoc`. Every example was accepted: a test sends each one to both runtimes as it stands here.

The examples run in a shell in the folder of the repository. In them,

{names}

Where no key is needed (`make run`), leave `-H "$KEY"` out. The model `churn` and its rows come from this Python:

```python
{prepare}```

## What holds for every route

- A route refuses parameters and fields that it does not know, with advice (422; the Open Inference
  Protocol and MLflow's paths: 400), and methods that it does not have (405).
- Refusals are problem documents with a code: [Errors by code](../errors.md). Those of the Open Inference Protocol and
  of MLflow's paths have the form of their protocol.
- 401: no key, or an unknown one. 403: the key lacks the scope, or, where no key is needed, the request comes from a web
  page of another host. 429: over the caller's quota. 503: the database does not answer. 400, 408, 413, 415: the body
  is damaged, too slow, too large, or of the wrong type. The pages list what a route adds to these.
- A key with the scope `admin` may do everything.
- Every answer has `X-Request-Id`; a sent one is kept. Below a path prefix, links begin with it.
- A model's card may choose the field names of its rows and answers ([clients.md](../clients.md)). The fields below are
  the service's own: `Accept: application/vnd.guichet+json`.

"""
_COMMON = {  # said once, above
    ("403", "With AUTH=open, the request comes from a web page of another host"),
    ("408", "The body arrives too slowly"),
    ("413", "Too many bytes"),
    ("415", "The body has no type, or one that this route does not read"),
    ("422", "A parameter is not valid, or unknown"),
    ("400", "The body is cut off, or contradicts its headers"),
    ("400", "The body is not plain JSON"),
    ("400", "A parameter is not valid, or unknown"),
    ("415", "The body is not JSON"),
    ("503", "The database does not answer"),
    ("503", "The database does not answer: see Retry-After"),
}


@dataclass(frozen=True, slots=True)
class Request:
    """An example of an operation: what is sent, with names for ids, and the status of the answer."""

    operation: str
    send: str
    status: int
    options: str = ""
    ended: str | None = None
    hidden: bool = False
    keep: dict[str, str] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """Return the curl command of the pages."""
        method, address = self.send.split()
        has_body = re.search(r"(^|\s)(-d|-F|--data-binary)\s", self.options) is not None
        implied = "POST" if has_body else "GET"
        quote = '"' if re.search(r"[?&$]", address) else ""
        verb = "" if method == implied else f"-X {method} "
        options = f" \\\n  {self.options}" if self.options else ""
        return f'curl -s {verb}-H "$KEY" {quote}{ADDRESS}{address}{quote}{options}'


def requests() -> list[Request]:
    """Return all examples, in the order in which they work."""
    with EXAMPLES.open("rb") as file:
        return [Request(**entry) for entry in tomllib.load(file)["request"]]


@cache
def document() -> dict[str, Any]:
    """Return the OpenAPI document of a service that asks for keys."""
    from api.main import ROUTERS, create_app
    from api.openapi import describe
    from shared.config.settings import Settings

    return describe(create_app(Settings(runtime="sync", auth="keys", database_url="sqlite:///none.db")), ROUTERS)


def pages() -> dict[str, str]:
    """Return every page by its name."""
    tags = document()["tags"]
    names = "\n".join(f"- `${name}` is {text}" for name, text in NAMES.items())
    text = _BEFORE.format(names=names, prepare=PREPARE)
    made: dict[str, str] = {}
    for tag in tags:
        name = tag["name"].replace(" ", "-") + ".md"
        title = tag["name"].capitalize() if tag["name"] not in ("csv", "mlflow") else _TITLES[tag["name"]]
        text += f"## {title}\n\n{tag['description']}\n\n| route | does | scope |\n|---|---|---|\n"
        page = [
            f"# Routes: {title}\n\n{tag['description']} What holds for every route, and the names in the examples: "
        ]
        page[0] += "[Routes](README.md).\n"
        for method, path, operation in _operations(tag["name"]):
            heading = f"{method} {path}"
            link, scope = f"[`{heading}`]({name}#{_slug(heading)})", _scope(operation) or "no key"
            text += f"| {link} | {operation['summary']} | {scope} |\n"
            page.append(_section(heading, operation))
        made[name] = "\n".join(page)
        text += "\n"
    return {"README.md": text.rstrip() + "\n"} | made


_TITLES = {"csv": "CSV", "mlflow": "MLflow"}


def _operations(tag: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document()["paths"].items():
        for method, operation in item.items():
            if tag in operation["tags"]:
                yield method.upper(), path, operation


def _slug(heading: str) -> str:
    """Return the anchor that MkDocs, and forges, give a heading."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def _scope(operation: dict[str, Any]) -> str:
    """Return the scope that a key needs, an empty text where no key is needed."""
    if not operation["security"]:
        return ""
    scope = re.search(r"lacks the scope (`\w+`(?: or `\w+`)?)", operation["responses"]["403"]["description"])
    assert scope is not None, operation["operationId"]
    return scope[1]


def _section(heading: str, operation: dict[str, Any]) -> str:
    parts = [f"## `{heading}`", _text(operation["description"])]
    scope = _scope(operation)
    parts.append(f"The key needs the scope {scope}." if scope else "It needs no key.")
    parameters = [
        f"| `{each['name']}` | {each['in']} | {_cell(_described(each))} |" for each in operation.get("parameters", [])
    ]
    if parameters:
        parts.append("| parameter | in | meaning |\n|---|---|---|\n" + "\n".join(parameters))
    parts += _body(operation)
    for example in requests():
        if example.operation == operation["operationId"] and not example.hidden:
            parts.append(f"```bash\n{example.command}\n```")
    parts += _answers(operation)
    return "\n\n".join(parts) + "\n"


def _described(entry: dict[str, Any]) -> str:
    schema = entry["schema"]
    text: str = entry["description"].rstrip(".")
    default = schema.get("default")
    return text if default is None else f"{text}; `{str(default).lower()}` if left out"


def _body(operation: dict[str, Any]) -> Iterator[str]:
    """Yield what a body may be: its types, and the fields of those that are JSON or a form."""
    content = operation.get("requestBody", {}).get("content", {})
    if content:
        yield "Body: " + ", ".join(f"`{kind}`" for kind in content) + "."
    for kind in ("application/json", "multipart/form-data"):
        for schema in _alternatives(content.get(kind, {}).get("schema", {})):
            fields = schema.get("properties", {})
            needed = schema.get("required", [])
            rows = [
                f"| `{name}` | {'yes' if name in needed else ''} | {_cell(part.get('description', ''))} |"
                for name, part in fields.items()
            ]
            if any(part.get("description") for part in fields.values()):
                yield "| field | needed | meaning |\n|---|---|---|\n" + "\n".join(rows)


def _answers(operation: dict[str, Any]) -> Iterator[str]:
    """Yield the statuses of success with the fields of their bodies, then the refusals that are this route's own."""
    refusals = []
    for status, answer in sorted(operation["responses"].items()):
        text = _text(answer["description"]).rstrip(".")
        if status[0] in "45":
            if (status, text) not in _COMMON and status not in ("401", "429") and not text.startswith("The key lacks"):
                refusals.append(f"{status}: {text}")
        else:
            yield _success(operation["operationId"], status, text, answer.get("content", {}))
    if refusals:
        yield "Further refusals: " + "; ".join(refusals) + "."


def _success(operation: str, status: str, text: str, content: dict[str, Any]) -> str:
    line = f"**{status}**" + ("." if text == "Successful Response" else f": {text}.")
    schema = content.get("application/json", {}).get("schema", {})
    if schema.get("$ref", "").endswith("/JobBody") and operation != "get_job":
        return f"{line} The body is a job, as of [`GET /jobs/{{id}}`](jobs.md#get-jobsid)."
    names = [name for each in _alternatives(schema)[:1] for name in each.get("properties", {})]
    if names:
        line += " Fields: " + ", ".join(f"`{name}`" for name in names) + "."
    if content.keys() - {"application/json"}:
        line += " Types: " + ", ".join(f"`{kind}`" for kind in content) + "."
    return line


def _alternatives(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the objects that a schema allows, with references followed."""
    if "$ref" in schema:
        return _alternatives(document()["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema or "oneOf" in schema:
        return [each for part in schema.get("anyOf") or schema["oneOf"] for each in _alternatives(part)]
    return [schema] if schema else []


def _text(text: str) -> str:
    return re.sub(r"\n(?!\n)(?<!\n\n)", " ", text.strip()).replace("  ", " ")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> int:
    """Write the pages; with `--print`, only show them."""
    made = pages()
    if sys.argv[1:] == ["--print"]:
        print("\n".join(made.values()), end="")
        return 0
    FOLDER.mkdir(exist_ok=True)
    for page in FOLDER.glob("*.md"):
        if page.name not in made:
            page.unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    print(f"written: {len(made)} pages in {FOLDER.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

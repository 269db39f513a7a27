"""A stand-in of the Hugging Face hub's HTTP API for its real client: models and Spaces, their commits, what runs."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_stand_in_token_0123456789"
DAY = "2026-01-01T00:00:00.000Z"


def blob_id(content: bytes) -> str:
    """Return the id that git gives to a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class NotThere(Exception):
    """The hub's own word for what it does not have."""


@dataclass
class Commit:
    id: str
    title: str
    files: dict[str, bytes]


@dataclass
class Hub:
    """What the hub holds, and every request that it got. It is open to all until it has a token."""

    url: str = ""
    token: str | None = None
    models: dict[str, list[Commit]] = field(default_factory=dict)  # newest last
    spaces: dict[str, list[Commit]] = field(default_factory=dict)
    sdks: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    stages: list[dict[str, Any]] = field(default_factory=list)  # what the runtime says, one after the other
    requests: list[str] = field(default_factory=list)
    ails: list[int] = field(default_factory=list)  # statuses that the next requests get, one each

    def commit(self, kind: str, name: str, files: dict[str, bytes], title: str = "a commit") -> Commit:
        """Put these files in the place of those that a repository has; its former commits stay readable."""
        history = getattr(self, kind).setdefault(name, [])
        made = Commit(hashlib.sha1(f"{kind} {name} {len(history)} {title}".encode()).hexdigest(), title, dict(files))
        history.append(made)
        return made

    def find(self, kind: str, name: str, revision: str | None = None) -> Commit:
        """Return the commit that a revision means, the newest if it is not said; raise NotThere."""
        history: list[Commit] = getattr(self, kind).get(name, [])
        if not history:
            raise NotThere("RepoNotFound")
        for commit in reversed(history):
            if revision in (None, "main", commit.id):
                return commit
        raise NotThere("RevisionNotFound")


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""

    def answer(self, body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status: int, message: str = "", *, code: str = "") -> None:
        self.answer({"error": message}, status=status, headers={"X-Error-Code": code, "X-Error-Message": message})

    def handle_request(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.ails:
            return self.refuse(self.hub.ails.pop(0), "ailing")
        key = self.headers.get("Authorization")
        if self.hub.token is not None and key != f"Bearer {self.hub.token}":
            if key is not None:
                return self.refuse(401, "Invalid credentials in Authorization header")
            # as the hub does: who may not read a repository is not told whether there is one
            return self.refuse(401, "Repository not found", code="RepoNotFound")
        for methods, pattern, handle in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in methods.split():
                try:
                    return handle(self, raw, **match.groupdict())
                except NotThere as error:
                    return self.refuse(404, "not found", code=str(error))
        return self.refuse(404, "no such page")

    do_GET = do_POST = do_HEAD = do_DELETE = do_PUT = handle_request

    # ── the routes ───────────────────────────────────────────────────────────────────────────────────────────────

    def create(self, raw: bytes) -> None:
        wish = json.loads(raw)
        kind, name = f"{wish['type']}s", f"{wish.get('organization') or 'owner'}/{wish['name']}"
        url = {"url": f"{self.hub.url}/{kind}/{name}"}
        if name in getattr(self.hub, kind):
            return self.answer(url, status=409)
        self.hub.sdks[name] = wish["sdk"]
        self.hub.commit(kind, name, {".gitattributes": b"", "index.html": b"<p>Hello</p>"}, "initial commit")
        return self.answer(url)

    def secret(self, raw: bytes, kind: str, name: str) -> None:
        self.hub.find(kind, name)
        wish = json.loads(raw)
        self.hub.secrets.setdefault(name, {})[wish["key"]] = wish["value"]
        self.answer({})

    def info(self, raw: bytes, kind: str, name: str, revision: str | None = None) -> None:
        commit = self.hub.find(kind, name, revision)
        files = [{"rfilename": file} for file in sorted(commit.files)]
        body = {"id": name, "sha": commit.id, "private": False, "tags": [], "siblings": files}
        self.answer(body | ({"sdk": self.hub.sdks.get(name)} if kind == "spaces" else {}))

    def validate(self, raw: bytes) -> None:
        self.answer({"errors": [], "warnings": []})

    def preupload(self, raw: bytes, kind: str, name: str, revision: str) -> None:
        now = self.hub.find(kind, name, revision).files
        files = []
        for file in json.loads(raw)["files"]:
            oid = blob_id(now[file["path"]]) if file["path"] in now else None
            files.append({"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": oid})
        self.answer({"files": files})

    def push(self, raw: bytes, kind: str, name: str, revision: str) -> None:
        now = self.hub.find(kind, name, revision)
        header, *changes = (json.loads(line) for line in raw.splitlines())
        if header["value"].get("parentCommit") not in (None, now.id):
            return self.refuse(412)
        files = dict(now.files)
        for change in changes:
            if change["key"] == "file":
                files[change["value"]["path"]] = base64.b64decode(change["value"]["content"])
            else:
                assert change["key"] == "deletedFile"
                del files[change["value"]["path"]]
        made = self.hub.commit(kind, name, files, header["value"]["summary"])
        url = f"{self.hub.url}/{kind}/{name}/commit/{made.id}"
        return self.answer({"success": True, "commitOid": made.id, "commitUrl": url})

    def commits(self, raw: bytes, kind: str, name: str, revision: str) -> None:
        self.hub.find(kind, name, revision)
        history = reversed(getattr(self.hub, kind)[name])
        self.answer([{"id": c.id, "title": c.title, "message": "", "date": DAY, "authors": []} for c in history])

    def tree(self, raw: bytes, kind: str, name: str, revision: str, folder: str | None) -> None:
        query = parse_qs(urlsplit(self.path).query)
        commit = self.hub.find(kind, name, revision)
        listed = entries(commit, f"{folder}/" if folder else "", recursive=query["recursive"] == ["true"])
        if not listed:
            raise NotThere("EntryNotFound")
        self.answer(listed)

    def paths_info(self, raw: bytes, kind: str, name: str, revision: str) -> None:
        paths = parse_qs(raw.decode())["paths"]
        listed = entries(self.hub.find(kind, name, revision), "", recursive=True)
        self.answer([entry for entry in listed if entry["path"] in paths])

    def file(self, raw: bytes, kind: str | None, name: str, revision: str, path: str) -> None:
        commit = self.hub.find(kind or "models", name, revision)
        if path not in commit.files:
            raise NotThere("EntryNotFound")
        content = commit.files[path]
        headers = {"ETag": f'"{blob_id(content)}"', "X-Repo-Commit": commit.id}
        part = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if part is None:
            return self.answer(content, headers=headers)
        first, last = int(part[1]), min(int(part[2]), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return self.answer(content[first : last + 1], status=206, headers=headers)

    def runtime(self, raw: bytes, kind: str, name: str) -> None:
        head = self.hub.find(kind, name).id
        stage = self.hub.stages.pop(0) if len(self.hub.stages) > 1 else self.hub.stages[0]
        self.answer({"hardware": {"current": "cpu-basic"}, "sha": head, **stage})


def entries(commit: Commit, inside: str, *, recursive: bool) -> list[dict[str, Any]]:
    """Return the files and folders of a commit below a folder (`folder/`, or '')."""
    commit_of = {"lastCommit": {"id": commit.id, "title": commit.title, "date": DAY}}
    listed: dict[str, dict[str, Any]] = {}
    for path, content in sorted(commit.files.items()):
        parts = path.removeprefix(inside).split("/")
        for depth in range(1, len(parts) + 1 if recursive else 2) if path.startswith(inside) else ():
            here = inside + "/".join(parts[:depth])
            oid = blob_id(content) if here == path else "0" * 40
            made = {"type": "file", "size": len(content)} if here == path else {"type": "directory", "size": 0}
            listed[here] = {"path": here, "oid": oid, **made, **commit_of}
    return list(listed.values())


REPO = r"(?P<name>[\w-]+/[\w.-]+)"
AT = r"(?P<revision>[\w.-]+)"
API = rf"/api/(?P<kind>models|spaces)/{REPO}"
ROUTES = (
    ("POST", r"/api/repos/create", Handler.create),
    ("POST", r"/api/validate-yaml", Handler.validate),
    ("POST", rf"{API}/secrets", Handler.secret),
    ("GET", rf"{API}/runtime", Handler.runtime),
    ("GET", rf"{API}(?:/revision/{AT})?", Handler.info),
    ("GET", rf"{API}/commits/{AT}", Handler.commits),
    ("GET", rf"{API}/tree/{AT}(?:/(?P<folder>.+))?", Handler.tree),
    ("POST", rf"{API}/paths-info/{AT}", Handler.paths_info),
    ("POST", rf"{API}/preupload/{AT}", Handler.preupload),
    ("POST", rf"{API}/commit/{AT}", Handler.push),
    ("GET HEAD", rf"/(?:(?P<kind>spaces)/)?{REPO}/resolve/{AT}/(?P<path>.+)", Handler.file),
)


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Yield a hub on a port of its own."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub}))
    server.daemon_threads = True  # a client that keeps its connection does not hold the end up
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)

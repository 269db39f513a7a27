"""A stand-in of the Hugging Face hub's HTTP API: Spaces with commits, secrets and a runtime, for its real client."""

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
from urllib.parse import unquote, urlsplit

TOKEN = "hf_stand_in_token_0123456789"


def blob_id(content: bytes) -> str:
    """Return the id that git gives to a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Commit:
    id: str
    title: str
    files: dict[str, bytes]


@dataclass
class Hub:
    """What the hub holds, and every request that it got."""

    url: str = ""
    spaces: dict[str, list[Commit]] = field(default_factory=dict)  # newest last
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    sdks: dict[str, str] = field(default_factory=dict)
    stages: list[dict[str, Any]] = field(default_factory=list)  # what the runtime says, one after the other
    requests: list[str] = field(default_factory=list)
    status: int | None = None  # what it answers to everything, if set

    def commit(self, space: str, title: str, files: dict[str, bytes]) -> Commit:
        """Add a commit that holds these files."""
        number = len(self.spaces[space])
        made = Commit(hashlib.sha1(f"{space} {number} {title}".encode()).hexdigest(), title, files)
        self.spaces[space].append(made)
        return made

    def find(self, space: str, revision: str) -> Commit | None:
        """Return the commit that a revision means."""
        commits = self.spaces.get(space, [])
        if revision == "main":
            return commits[-1] if commits else None
        return next((commit for commit in commits if commit.id == revision), None)


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass

    def answer(self, status: int, body: Any = None, *, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status: int, code: str = "") -> None:
        self.answer(status, {"error": code}, headers={"X-Error-Code": code, "X-Error-Message": code})

    def handle_request(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length) if length else b""
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.status is not None:
            return self.refuse(self.hub.status)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.refuse(401)
        for method, pattern, handle in ROUTES:
            found = re.fullmatch(pattern, path)
            if found and self.command in method:
                return handle(self, raw, **found.groupdict())
        return self.refuse(404)

    do_GET = do_POST = do_HEAD = do_DELETE = do_PUT = handle_request

    # ── the routes ───────────────────────────────────────────────────────────────────────────────────────────────

    def create(self, raw: bytes) -> None:
        wish = json.loads(raw)
        space = f"{wish.get('organization') or 'owner'}/{wish['name']}"
        if space in self.hub.spaces:
            return self.answer(409, {"url": f"{self.hub.url}/spaces/{space}"})
        self.hub.spaces[space] = []
        self.hub.sdks[space] = wish["sdk"]
        self.hub.commit(space, "initial commit", {".gitattributes": b"", "index.html": b"<p>Hello</p>"})
        return self.answer(200, {"url": f"{self.hub.url}/spaces/{space}"})

    def secret(self, raw: bytes, space: str) -> None:
        wish = json.loads(raw)
        self.hub.secrets.setdefault(space, {})[wish["key"]] = wish["value"]
        self.answer(200, {})

    def info(self, raw: bytes, space: str, revision: str | None = None) -> None:
        commit = self.hub.find(space, revision or "main")
        if commit is None:
            return self.refuse(404, "RevisionNotFound" if space in self.hub.spaces else "RepoNotFound")
        siblings = [{"rfilename": name} for name in sorted(commit.files)]
        return self.answer(200, {"id": space, "sha": commit.id, "private": False, "tags": [], "siblings": siblings})

    def validate(self, raw: bytes) -> None:
        self.answer(200, {"errors": [], "warnings": []})

    def preupload(self, raw: bytes, space: str, revision: str) -> None:
        now = self.hub.find(space, revision)
        files = []
        for file in json.loads(raw)["files"]:
            known = None if now is None else now.files.get(file["path"])
            oid = None if known is None else blob_id(known)
            files.append({"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": oid})
        self.answer(200, {"files": files})

    def push(self, raw: bytes, space: str, revision: str) -> None:
        lines = [json.loads(line) for line in raw.splitlines()]
        header = lines[0]["value"]
        now = self.hub.find(space, revision)
        if now is None:
            return self.refuse(404, "RepoNotFound")
        if header.get("parentCommit") not in (None, now.id):
            return self.refuse(412)
        files = dict(now.files)
        for line in lines[1:]:
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            else:
                assert line["key"] == "deletedFile"
                del files[line["value"]["path"]]
        made = self.hub.commit(space, header["summary"], files)
        url = f"{self.hub.url}/spaces/{space}/commit/{made.id}"
        return self.answer(200, {"success": True, "commitOid": made.id, "commitUrl": url})

    def commits(self, raw: bytes, space: str, revision: str) -> None:
        found = [
            {"id": c.id, "title": c.title, "message": "", "date": "2026-01-01T00:00:00.000Z", "authors": []}
            for c in reversed(self.hub.spaces[space])
        ]
        self.answer(200, found)

    def tree(self, raw: bytes, space: str, revision: str) -> None:
        commit = self.hub.find(space, revision)
        if commit is None:
            return self.refuse(404, "RevisionNotFound")
        found = [
            {"type": "file", "path": name, "size": len(content), "oid": blob_id(content)}
            for name, content in sorted(commit.files.items())
        ]
        return self.answer(200, found)

    def file(self, raw: bytes, space: str, revision: str, path: str) -> None:
        commit = self.hub.find(space, revision)
        if commit is None or path not in commit.files:
            return self.refuse(404, "EntryNotFound")
        content = commit.files[path]
        return self.answer(200, content, headers={"ETag": f'"{blob_id(content)}"', "X-Repo-Commit": commit.id})

    def runtime(self, raw: bytes, space: str) -> None:
        said = self.hub.stages.pop(0) if len(self.hub.stages) > 1 else self.hub.stages[0]
        head = self.hub.find(space, "main")
        assert head is not None
        self.answer(200, {"hardware": {"current": "cpu-basic"}, "sha": head.id, **said})


SPACE = r"(?P<space>[\w-]+/[\w.-]+)"
REVISION = r"(?P<revision>[\w.-]+)"
ROUTES = (
    ("POST", r"/api/repos/create", Handler.create),
    ("POST", rf"/api/spaces/{SPACE}/secrets", Handler.secret),
    ("GET", rf"/api/spaces/{SPACE}/runtime", Handler.runtime),
    ("GET", rf"/api/spaces/{SPACE}/revision/{REVISION}", Handler.info),
    ("GET", rf"/api/spaces/{SPACE}/commits/{REVISION}", Handler.commits),
    ("GET", rf"/api/spaces/{SPACE}/tree/{REVISION}", Handler.tree),
    ("POST", rf"/api/spaces/{SPACE}/preupload/{REVISION}", Handler.preupload),
    ("POST", rf"/api/spaces/{SPACE}/commit/{REVISION}", Handler.push),
    ("POST", r"/api/validate-yaml", Handler.validate),
    ("GET", rf"/api/spaces/{SPACE}", Handler.info),
    ("GET HEAD", rf"/spaces/{SPACE}/resolve/{REVISION}/(?P<path>.+)", Handler.file),
)


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Yield a hub on a port of its own."""
    hub = Hub()
    handler = type("HubHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

"""A stand-in for the part of the Hugging Face hub's HTTP API that reads: repositories of files, by commit."""

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

LAST_COMMIT = {"id": "0" * 40, "title": "a commit", "date": "2026-01-01T00:00:00.000Z"}


@dataclass
class Hub:
    """Repositories and their history; `token` opens them where it is set, `ails` answers first, one each."""

    url: str = ""
    token: str | None = None
    ails: list[int] = field(default_factory=list)  # statuses that the next requests get
    asked: list[str] = field(default_factory=list)
    commits: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)  # repository -> commit -> files

    def commit(self, repository: str, files: dict[str, bytes]) -> str:
        """Put these files in the place of a repository's; return the commit, which stays readable."""
        content = json.dumps({name: hashlib.sha256(body).hexdigest() for name, body in sorted(files.items())})
        commit = hashlib.sha1(content.encode()).hexdigest()
        history = self.commits.setdefault(repository, {})
        history.pop(commit, None)
        history[commit] = dict(files)
        return commit

    def find(self, repository: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        history = self.commits.get(repository, {})
        commit = next(reversed(history), "") if revision == "main" else revision
        return (commit, history[commit]) if commit in history else None


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Yield a hub that listens on a port of 127.0.0.1."""
    hub = Hub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub.asked.append(path)
        if hub.ails:
            return self._send(hub.ails.pop(0), {"error": "ailing"})
        if hub.token is not None and self.headers.get("Authorization") != f"Bearer {hub.token}":
            # as the hub does: who may not read a repository is not told whether there is one
            return self._send(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?", path)
        if found is not None:
            return self._api(found[1], found[2] or "revision", found[3] or "main", found[4] or "", body)
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        return self._resolve(*found.groups()) if found is not None else self._send(404, {"error": "no such page"})

    def _api(self, repository: str, kind: str, revision: str, folder: str, body: bytes) -> None:
        place = self.hub.find(repository, revision)
        if place is None:
            code = "RevisionNotFound" if repository in self.hub.commits else "RepoNotFound"
            return self._send(404, {"error": "not found"}, {"X-Error-Code": code})
        commit, files = place
        if kind == "revision":
            siblings = [{"rfilename": name} for name in files]
            return self._send(200, {"id": repository, "modelId": repository, "sha": commit, "siblings": siblings})
        if kind == "paths-info":
            asked = json.loads(body)["paths"]
            return self._send(200, [entry for entry in _entries(files, recursive=True) if entry["path"] in asked])
        recursive = "recursive=true" in self.path.lower()
        entries = _entries(files, folder=folder, recursive=recursive)
        if not entries:
            return self._send(404, {"error": "not found"}, {"X-Error-Code": "EntryNotFound"})
        return self._send(200, entries)

    def _resolve(self, repository: str, revision: str, name: str) -> None:
        place = self.hub.find(repository, revision)
        if place is None or name not in place[1]:
            return self._send(404, {"error": "not found"}, {"X-Error-Code": "EntryNotFound"})
        commit, files = place
        etag = hashlib.sha256(files[name]).hexdigest()
        return self._send(200, files[name], {"X-Repo-Commit": commit, "ETag": f'"{etag}"'})

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _entries(files: dict[str, bytes], *, folder: str = "", recursive: bool) -> list[dict[str, Any]]:
    inside = f"{folder}/" if folder else ""
    entries, folders = [], set()
    for name, body in files.items():
        if not name.startswith(inside):
            continue
        parts = name.removeprefix(inside).split("/")
        for depth in range(1, len(parts)) if recursive else range(1, min(2, len(parts))):
            folders.add(inside + "/".join(parts[:depth]))
        if recursive or len(parts) == 1:
            oid = hashlib.sha1(body).hexdigest()
            entries.append({"type": "file", "path": name, "size": len(body), "oid": oid, "lastCommit": LAST_COMMIT})
    made = [{"type": "directory", "path": each, "oid": "0" * 40, "lastCommit": LAST_COMMIT} for each in sorted(folders)]
    return made + entries

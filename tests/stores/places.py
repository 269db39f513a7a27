"""Stores of models for tests: a real S3 server (moto's), the stand-in of the hub, and a folder."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import httpx2
import pytest

from tests.support.hub import Hub
from tests.support.stack import free_port

KEYS = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "secret"}


class Store(Protocol):
    """A store as its owner sees it: `env` is what a client of it needs."""

    root: str
    env: dict[str, str]

    def put(self, name: str, content: bytes) -> None:
        """Write a file."""


@dataclass
class Bucket:
    """A bucket of an S3 server."""

    url: str
    name: str
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        import boto3  # heavy; comes with moto

        self.root = f"s3://{self.name}/models"
        # the metadata service of a virtual machine would be asked for credentials for a second
        self.env = KEYS | {"AWS_ENDPOINT_URL": self.url, "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
        self.client = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )
        self.client.create_bucket(Bucket=self.name)

    def put(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=f"models/{name}", Body=content)

    def get(self, name: str) -> bytes:
        """Read a file."""
        content: bytes = self.client.get_object(Bucket=self.name, Key=f"models/{name}")["Body"].read()
        return content


@dataclass
class Repository:
    """A model repository of the hub: what is put is a commit on top."""

    hub: Hub
    name: str

    def __post_init__(self) -> None:
        self.root = f"hf://{self.name}"
        self.env = {"HF_ENDPOINT": self.hub.url, "HF_HUB_DISABLE_XET": "1"}
        self.files: dict[str, bytes] = {}
        self.hub.commit("models", self.name, {})

    def put(self, name: str, content: bytes) -> None:
        self.files[name] = content
        self.hub.commit("models", self.name, self.files)


@dataclass
class Folder:
    """A folder, as of a network disk."""

    path: Path
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root = self.path.as_uri()

    def put(self, name: str, content: bytes) -> None:
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}")
        draft.write_bytes(content)
        draft.replace(target)


@contextmanager
def running_s3(folder: Path) -> Iterator[str]:
    """Yield the URL of an S3 server in a process of its own."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with (folder / "s3.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx2.get(f"{url}/moto-api/")
                break
            except httpx2.TransportError:
                assert time.monotonic() < deadline, (folder / "s3.log").read_text()
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(10)


def put_package(store: Store, folder: Path, place: str = "", *, only: tuple[str, ...] = ()) -> None:
    """Put the files of a package into a store; the card comes last, as a tool that knows would do it."""
    for name in sorted(os.listdir(folder), key=lambda name: name == "model.json"):
        if not only or name in only:
            store.put(f"{place}/{name}" if place else name, (folder / name).read_bytes())


def enter(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """Let this process be a client of the store."""
    for name, value in store.env.items():
        monkeypatch.setenv(name, value)

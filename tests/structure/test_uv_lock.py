"""uv.lock and the dependencies of pyproject.toml: `uv sync` installs what `make` does. No network is asked."""

import re
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.generate import uv_lock

PROJECT = tomllib.loads(uv_lock.PROJECT.read_text())
LOCK = tomllib.loads(uv_lock.LOCK.read_text())
OURS = {"guichet", "guichet-client"}


def test_dependencies_of_the_project_are_those_that_requirements_list():
    assert uv_lock.PROJECT.read_text() == uv_lock.render(), "run `make lock`"
    assert len(PROJECT["project"]["dependencies"]) > 40
    assert len(PROJECT["dependency-groups"]["dev"]) > 15


def test_lock_was_made_of_these_dependencies():
    [project] = [package for package in LOCK["package"] if package["name"] == "guichet"]
    metadata = project["metadata"]
    locked = {canonicalize_name(each["name"]) for each in metadata["requires-dist"]}
    assert locked == {canonicalize_name(Requirement(each).name) for each in PROJECT["project"]["dependencies"]}
    dev = {canonicalize_name(each["name"]) for each in metadata["requires-dev"]["dev"]}
    assert dev == {canonicalize_name(Requirement(each).name) for each in PROJECT["dependency-groups"]["dev"]}
    assert LOCK["requires-python"] == PROJECT["project"]["requires-python"]
    assert project["version"] == PROJECT["project"]["version"]


def test_lock_of_uv_has_the_versions_of_make_and_no_others():
    pinned = {re.split(r"[ ;]", pin)[0] for pin in uv_lock.pins()}
    assert len(pinned) > 150
    locked = {f"{each['name']}=={each['version']}" for each in LOCK["package"] if each["name"] not in OURS}
    assert locked == {re.sub(r"\[.*\]", "", pin) for pin in pinned}, "run `make lock`"


def test_lock_names_hashes_and_no_index_but_the_public_one():
    for package in LOCK["package"]:
        if package["name"] not in OURS:
            assert package["source"] == {"registry": "https://pypi.org/simple"}
            files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
            assert files
            assert all(each["hash"].startswith("sha256:") for each in files)

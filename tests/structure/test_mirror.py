"""Tests lie where what they test lies: folders of tests are named as rooms, and no room is without proof."""

from pathlib import Path

import pytest

from scripts.generate.architecture import rooms

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"

# Folders of tests, and what they mirror.
MIRRORS = {
    "shared": "shared",
    "api": "api",
    "worker": "worker",
    "scripts": "scripts",
    "client": "client/src/guichet",
}

# Rooms that are tried from outside alone, and the folder that does it; the rooms inside them are as well.
PROOF = {
    "api/console/pages": "contracts/console",
    "api/jobs/queries": "contracts/jobs",
    "api/routes": "contracts",
    "api/schemas/models": "contracts/models",
}


def folders_of(folder: Path) -> list[Path]:
    """Return the packages inside a folder, relative to it."""
    return [path.parent.relative_to(folder) for path in folder.rglob("__init__.py") if path.parent != folder]


def has_tests(folder: Path) -> bool:
    return any(folder.rglob("test_*.py"))


@pytest.mark.parametrize(("folder", "mirrored"), MIRRORS.items())
def test_every_folder_of_unit_tests_is_named_as_a_room(folder, mirrored):
    folders = folders_of(TESTS / folder)
    assert folders
    assert [str(path) for path in folders if not (ROOT / mirrored / path / "__init__.py").exists()] == []
    assert [str(path) for path in folders if not has_tests(TESTS / folder / path)] == []


def test_every_folder_of_contracts_is_a_noun_of_the_api():
    """A room of `api` or of its routes, or a file of one: tests/contracts/jobs/predict, api/routes/jobs/predict.py."""
    wrong = [
        str(path)
        for path in folders_of(TESTS / "contracts")
        if not any(
            (ROOT / place / path).is_dir() or (ROOT / place / path).with_suffix(".py").exists()
            for place in ("api", "api/routes")
        )
    ]
    assert wrong == []


def test_every_room_of_the_product_has_tests_or_a_named_proof():
    names = [str(room.relative_to(ROOT)) for room in rooms()]
    bare = [name for name in names if not has_tests(TESTS / name)]
    assert [name for name in bare if not any(f"{name}/".startswith(f"{room}/") for room in PROOF)] == []
    assert [room for room in PROOF if room not in bare] == [], "a room with tests of its own needs no other proof"
    assert [folder for folder in PROOF.values() if not has_tests(TESTS / folder)] == []

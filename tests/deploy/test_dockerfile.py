"""`docker build .`: the Dockerfile at the root is the Space's, and finds what it copies."""

import fnmatch
from pathlib import Path

from scripts.generate import dockerfile
from scripts.space.folder import copied, tracked

ROOT = Path(__file__).resolve().parents[2]


def is_sent(path: str) -> bool:
    """Tell whether .dockerignore lets a file into the build: the last pattern that fits decides."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        if not pattern or pattern.startswith("#"):
            continue
        parts = path.split("/")
        prefixes = ["/".join(parts[: count + 1]) for count in range(len(parts))]
        names = parts if line.startswith("**/") else prefixes
        if any(fnmatch.fnmatch(name, pattern) for name in names):
            sent = line.startswith("!")
    return sent


def test_dockerfile_is_made_of_its_parts():
    assert dockerfile.FILE.read_text() == dockerfile.render(), "run `make dockerfile`"


def test_dockerfile_ends_with_a_container_that_serves_with_models_and_as_nobody_special():
    lines = dockerfile.render().splitlines()
    last = lines[max(number for number, line in enumerate(lines) if line.startswith("FROM ")) :]
    assert 'ENTRYPOINT ["python", "-m", "deploy.space.start"]' in last
    assert " && python -m examples.build" in last
    assert [line for line in last if line.startswith("USER ")][-1] == "USER 1000:1000"


def test_every_file_that_the_build_copies_is_sent_to_it():
    files = tracked(ROOT, copied(dockerfile.render()))
    assert len(files) > 200
    assert [path for path in files if not is_sent(path)] == []
    assert not is_sent("tests/conftest.py")
    assert not is_sent("deploy/space/.env")

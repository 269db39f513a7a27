"""The folder that is a Space: a Dockerfile made from Dockerfile.api, the page, and the files that the build copies."""

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from scripts.checkout import ROOT, Failure

LAST_STAGE = "space"
_ENDINGS = (".joblib", ".pyc", ".pem", ".key")  # never in an image that everyone can read
_FROM = re.compile(r"^FROM\s+(?P<base>\S+)(?:\s+AS\s+(?P<name>\S+))?\s*$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a Dockerfile: its name, its base, and its lines."""

    name: str
    base: str
    lines: tuple[str, ...]

    @property
    def needs(self) -> set[str]:
        """Return the stages that it is made from."""
        return {self.base, *re.findall(r"--from=(\S+)", "\n".join(self.lines))}


def write_space(folder: Path, *, space: str, root: Path = ROOT) -> list[str]:
    """Write the Space into an empty folder; return the files, sorted. Raises Failure if that is not possible."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Failure(f"{folder} is there already: name a new or empty folder")
    dockerfile = make_dockerfile(_read(root / "Dockerfile.api"), _read(root / "deploy" / "space" / "Dockerfile.stage"))
    files = {path: (root / path).read_bytes() for path in tracked(root, copied(dockerfile))}
    files["Dockerfile"] = dockerfile.encode()
    files["README.md"] = page(_read(root / "deploy" / "space" / "README.md"), space).encode()
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return sorted(files)


def make_dockerfile(api: str, last: str) -> str:
    """Return Dockerfile.api with one more stage, and without those that this stage does not need."""
    head, stages = split_stages(api + last)
    by_name = {stage.name: stage for stage in stages}
    if LAST_STAGE not in by_name:
        raise Failure(f"deploy/space/Dockerfile.stage has no stage named {LAST_STAGE}")
    needed: set[str] = set()
    waiting = [LAST_STAGE]
    while waiting:
        name = waiting.pop()
        if name in by_name and name not in needed:
            needed.add(name)
            waiting += by_name[name].needs
    if needed == {LAST_STAGE}:
        raise Failure(f"Dockerfile.api has no stage {by_name[LAST_STAGE].base}, on which the Space stands")
    kept = [line for stage in stages if stage.name in needed for line in stage.lines]
    header = "# Made from Dockerfile.api and deploy/space/Dockerfile.stage: change it there."
    options = [line for line in head if not line.startswith("#")]
    return "\n".join([header, *options, *kept]).rstrip() + "\n"


def split_stages(text: str) -> tuple[list[str], list[Stage]]:
    """Return the lines before the first stage, and the stages. Comments above a FROM belong to its stage."""
    head: list[str] = []
    stages: list[tuple[str, str, list[str]]] = []
    for line in text.splitlines():
        match = _FROM.match(line)
        current = stages[-1][2] if stages else head
        if match is None:
            current.append(line)
            continue
        above: list[str] = []
        while stages and current and current[-1].startswith("#"):
            above.insert(0, current.pop())
        stages.append((match["name"] or str(len(stages)), match["base"], [*above, line]))
    return head, [Stage(name, base, tuple(lines)) for name, base, lines in stages]


def copied(dockerfile: str) -> list[str]:
    """Return the files and folders of the build context that a Dockerfile copies."""
    paths: set[str] = set()
    for line in re.sub(r"\\\n", " ", dockerfile).splitlines():
        words = shlex.split(line) if re.match(r"(COPY|ADD)\s", line) else []
        if words and not any(word.startswith("--from=") for word in words):
            paths.update(word.rstrip("/") for word in words[1:-1] if not word.startswith("--"))
    if "." in paths:
        raise Failure("the Dockerfile copies `.`: name the folders, or everything in the work tree would be uploaded")
    return sorted(paths)


def tracked(root: Path, places: list[str]) -> list[str]:
    """Return the files at these places that git knows; what lies about in the work tree is nobody's business."""
    try:
        listed = subprocess.run(
            ["git", "-C", str(root), "ls-files", "-z", "--", *places],  # noqa: S607 - whichever git this machine has
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        raise Failure("git does not list the files of this copy: deploy from a clone of the repository") from None
    files = [name for name in listed.stdout.split("\0") if name and not name.endswith(_ENDINGS)]
    for place in places:
        if not any(name == place or name.startswith(f"{place}/") for name in files):
            raise Failure(f"{place}, which the Dockerfile copies, is not in the repository: commit it first")
    return files


def page(text: str, space: str) -> str:
    """Return the Space's README with its address in place of the placeholder."""
    return text.replace("OWNER-NAME.hf.space", host_of(space))


def host_of(space: str) -> str:
    """Return the host name at which a Space OWNER/NAME answers."""
    return re.sub(r"[^a-z0-9]+", "-", space.lower()).strip("-") + ".hf.space"


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise Failure(f"{file.name} cannot be read ({error.strerror}): the Space is made from it") from None

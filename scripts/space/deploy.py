"""`python -m scripts.space.deploy`: make the Hugging Face Space, and push it.

    --dry-run DIR            write the folder, push nothing
    --space OWNER/NAME       push it as one commit (SPACE_ID in the environment does the same)
    --wait SECONDS           and wait until the Space runs that commit
    --rollback [REVISION]    push the files of an earlier commit again, by default of the one before the last

The token comes from HF_TOKEN and is never printed; ADMIN_KEY, where it is set, becomes a secret of the Space.
HF_ENDPOINT is the hub's address, if it is another one.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from api.auth.key_format import is_key
from scripts.checkout import ROOT, Failure
from scripts.space.folder import host_of, write_space
from shared.stdout import run
from shared.version import VERSION

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_FAILED = ("BUILD_ERROR", "CONFIG_ERROR", "RUNTIME_ERROR", "NO_APP_FILE", "PAUSED", "STOPPED", "DELETING")
_POLL_SECONDS = 5.0
_NOTICE_SECONDS = 120.0  # by then the hub has noticed a push


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push did: the commit before it (None for a new Space), and its own."""

    former: str | None
    revision: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.space.deploy", description="Deploy the Hugging Face Space."
    )
    parser.add_argument("--dry-run", type=Path, metavar="DIR", help="write the folder, push nothing")
    parser.add_argument("--space", default=os.environ.get("SPACE_ID", ""), metavar="OWNER/NAME", help="or SPACE_ID")
    parser.add_argument("--private", action="store_true", help="a Space that has to be made is private")
    parser.add_argument("--wait", type=float, default=0, metavar="SECONDS", help="wait until the Space runs it")
    parser.add_argument("--rollback", nargs="?", const="", metavar="REVISION", help="push an earlier commit again")
    options = parser.parse_args(arguments)
    try:
        if options.dry_run is not None:
            files = write_space(options.dry_run, space=options.space or "OWNER/NAME")
            print(f"guichet: {len(files)} files in {options.dry_run}; docker build {options.dry_run} makes the image")
            return 0
        deploy(options)
    except Failure as problem:
        print(f"guichet: {problem}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"guichet: {error.filename} cannot be written ({error.strerror}): give another place", file=sys.stderr)
        return 1
    return 0


def deploy(options: argparse.Namespace) -> None:
    """Push the Space as the options say, print each step, and wait for its start. Raises Failure."""
    space: str = options.space
    if space.count("/") != 1 or not all(space.split("/")):
        raise Failure("which Space? name it with --space OWNER/NAME, or in SPACE_ID")
    token, key = (os.environ.get(name, "").strip() for name in ("HF_TOKEN", "ADMIN_KEY"))
    if not token:
        raise Failure("HF_TOKEN is not set: put a token there that may write to the Space")
    if not re.fullmatch(r"[!-~]+", token):
        raise Failure("HF_TOKEN holds characters that no token has: copy it again")
    if key and not is_key(key):  # the Space would not start with it, and neither would the commit before
        raise Failure("ADMIN_KEY is no key of the service: `python -m api.keys generate` makes one")
    # Imported here: --dry-run needs nothing but this repository.
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)
    try:
        with tempfile.TemporaryDirectory(prefix="guichet-space-") as place:
            folder = Path(place) / "space"
            if options.rollback is None:
                write_space(folder, space=space)
                message = f"Deploy Guichet {VERSION} ({_commit()})"
                api.create_repo(
                    space, repo_type="space", space_sdk="docker", private=options.private or None, exist_ok=True
                )
                if (sdk := api.space_info(space).sdk) not in (None, "docker"):
                    raise Failure(
                        f"{space} is a {sdk} Space, whose files would be replaced: name another, or delete it"
                    )
                if key:
                    api.add_space_secret(space, "ADMIN_KEY", key)
            else:
                # asked first: the download takes whatever is refused for a hub that is away
                revision = api.repo_info(
                    space, repo_type="space", revision=options.rollback or _before_last(api, space)
                ).sha
                api.snapshot_download(space, repo_type="space", revision=revision, local_dir=folder)
                message = f"Roll back to {revision}"
            pushed = push(api, space, folder, message)
        _tell(space, pushed)
        if options.wait:
            wait_until_running(api, space, pushed, seconds=options.wait)
            print(f"guichet: https://{host_of(space)} runs {pushed.revision}")
    except HfHubHTTPError as error:
        raise Failure(_explain(error.response.status_code, space)) from None
    except HFValidationError as error:
        raise Failure(f"SPACE_ID is no name of a Space: {error}") from None
    except Exception as error:
        if not _is_transport(error):
            raise
        raise Failure(f"the hub at {api.endpoint} does not answer ({type(error).__name__}): try again") from None


def push(api: "HfApi", space: str, folder: Path, message: str) -> Pushed:
    """Make the Space hold these files and no others, in one commit, so that it is built once and never half."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    former = api.repo_info(space, repo_type="space").sha
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    files = {name: path for name, path in files.items() if not name.startswith(".cache/")}  # the download's own
    gone = sorted(set(api.list_repo_files(space, repo_type="space")) - files.keys() - {".gitattributes"})
    commit = api.create_commit(
        space,
        [
            *(CommitOperationAdd(name, path) for name, path in sorted(files.items())),
            *(CommitOperationDelete(name) for name in gone),
        ],
        commit_message=message,
        repo_type="space",
        parent_commit=former,
    )
    return Pushed(former, commit.oid)


def wait_until_running(api: "HfApi", space: str, pushed: Pushed, *, seconds: float) -> None:
    """Return when the Space runs the pushed commit. Raises Failure if its build fails or takes too long."""
    from huggingface_hub.errors import HfHubHTTPError

    began = time.monotonic()
    deadline = began + seconds
    is_noticed = pushed.former == pushed.revision
    while True:
        try:
            runtime = api.get_space_runtime(space)
        except Exception as error:  # minutes of waiting outlive a moment of the hub, and what is pushed stays pushed
            is_passing = isinstance(error, HfHubHTTPError) and error.response.status_code in (429, 500, 502, 503, 504)
            if not (is_passing or _is_transport(error)) or time.monotonic() > deadline:
                raise
            time.sleep(_POLL_SECONDS)
            continue
        # Until the hub has noticed the push, it tells of the last one. Where it does not say of which commit it tells,
        # a stage on the way shows that it has.
        stage = str(getattr(runtime.stage, "value", runtime.stage))
        is_noticed |= stage not in ("RUNNING", *_FAILED) or time.monotonic() - began > _NOTICE_SECONDS
        sha = runtime.raw.get("sha")
        runs = is_noticed if sha is None else sha == pushed.revision
        if runs and stage == "RUNNING":
            return
        if runs and stage in _FAILED:
            reason = str(runtime.raw.get("errorMessage") or "its log on the hub says why").strip()
            raise Failure(f"the Space does not run: {stage}: {reason}")
        if time.monotonic() > deadline:
            raise Failure(f"the Space does not run {pushed.revision} after {seconds:g} s: it is {stage}")
        time.sleep(_POLL_SECONDS)


def _is_transport(error: Exception) -> bool:
    """Return whether the network failed: the client's own errors differ by its version; none may show a header."""
    kinds = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    # An OSError of this machine's files names one; the client's own, of an upload or download, does not.
    is_theirs = isinstance(error, OSError) and error.filename is None
    return is_theirs or bool(kinds & {"httpx", "httpx2", "httpcore", "requests"})


def _before_last(api: "HfApi", space: str) -> str:
    commits = api.list_repo_commits(space, repo_type="space")
    if len(commits) < 2:
        raise Failure(f"{space} has no earlier commit to go back to")
    return commits[1].commit_id


def _tell(space: str, pushed: Pushed) -> None:
    same = " (nothing had changed)" if pushed.former == pushed.revision else ""
    print(f"guichet: {space} is at {pushed.revision}{same}; before: {pushed.former}")
    if output := os.environ.get("GITHUB_OUTPUT"):  # what the next steps of a workflow read
        with Path(output).open("a", encoding="utf-8") as file:
            file.write(f"former={pushed.former or ''}\nrevision={pushed.revision}\nurl=https://{host_of(space)}\n")


def _commit() -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"],  # noqa: S607 - whichever git this machine has
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "no commit"


def _explain(status: int, space: str) -> str:
    if status in (401, 403):
        return f"the hub refuses the token in HF_TOKEN ({status}): it must be valid, and may write to {space}"
    if status == 404:
        return f"the hub knows no Space {space}, or no such revision of it"
    if status == 412:
        return f"somebody else has just pushed to {space}: try again"
    return f"the hub answered {status}: try again, or look at https://status.huggingface.co"


if __name__ == "__main__":
    sys.exit(run(main))

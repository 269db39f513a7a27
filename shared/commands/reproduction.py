"""`python -m shared.registry reproduce`: a past decision scored again, where the artefacts lie."""

# ruff: noqa: T201 - a command prints

import argparse
import json

from shared.config.settings import get_settings
from shared.database.engine import get_engine, reader
from shared.faults import Fault, counted
from shared.rescoring.reproduce import Reproduction, RowFinding, reproduce
from shared.scoring.outputs import Output

SHOWN = 20  # rows of a job that are message of


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `reproduce` to the registry's commands."""
    parser = commands.add_parser(
        "reproduce",
        help="score stored rows of a job again by the artefact that decided, and compare bit for bit",
        description="The artefact is loaded by its SHA-256 and scores the stored input again; nothing is written. The "
        "exit code is 0 where every score comes out again and nothing was changed, else 1.",
    )
    parser.add_argument("job", metavar="JOB", help="the job's id")
    parser.add_argument("row", nargs="?", type=_row, metavar="ROW", help="only this row of it, from 0")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_reproduce)


def _reproduce(options: argparse.Namespace) -> int:
    settings = get_settings()
    with reader(get_engine()).connect() as connection:
        reproduction = reproduce(
            connection, options.job, options.row, models_dir=settings.models, store=settings.models_uri
        )
    print(json.dumps(reproduction.report(), default=str) if options.json else "\n".join(_lines(reproduction)))
    return 0 if reproduction.is_equal else 1


def _lines(reproduction: Reproduction) -> list[str]:
    version, job = reproduction.version, reproduction.job
    lines = [
        f"job        {job.id}, accepted at {job.created_at:%Y-%m-%d %H:%M:%S}, {job.state}",
        f"model      {reproduction.label}, {version.card['task']}, by {version.card.get('decided_by') or 'its number'}",
        f"promoted   {_promoted(reproduction)}",
        f"artefact   {_as_registered(reproduction, 'artefact', f'sha256 {version.sha256}, in {reproduction.folder}')}",
    ]
    lines.append(f"card       {_as_registered(reproduction, 'card', 'as it was registered')}")
    if not reproduction.findings:
        return [*lines, "Nothing was scored: what is not as it was registered is not loaded."]
    registered = version.scorer["kind"]
    other = "" if reproduction.scorer == registered else f", and registered was {registered}"
    lines.append(f"scorer     {reproduction.scorer}{other}")
    lines.append(f"threshold  {version.card.get('threshold')}")
    lines.append(f"libraries  {_libraries(reproduction)}")
    if len(reproduction.findings) == 1:
        return lines + _one(reproduction.findings[0])
    counts = reproduction.counts()
    lines.append(
        f"rows       {counted(len(reproduction.findings), 'row')}, {counts['']} equal bit for bit or without a score"
    )
    lines += [f"           {counts[changed]} with changed {changed}" for changed in sorted(counts) if changed]
    differing = [finding for finding in reproduction.findings if finding.changed]
    lines += [f"row {finding.index}: {finding.message}" for finding in differing[:SHOWN]]
    if len(differing) > SHOWN:
        lines.append(f"... and {len(differing) - SHOWN} more")
    return lines


def _one(finding: RowFinding) -> list[str]:
    lines = [f"row        {finding.index}"]
    if finding.stored is not None:
        lines.append(f"stored     {_score(finding.stored)}")
        lines.append(f"now        {_score(finding.now)}")
    if finding.changed:
        return [*lines, f"CHANGED    {finding.changed}: {finding.message}"]
    return [
        *lines,
        f"equal      bit for bit, {finding.company}" if finding.company else f"           {finding.message}",
    ]


def _score(score: Output | Fault | None) -> str:
    """Return a score as text, with every digit that distinguishes it from its neighbours."""
    if not isinstance(score, Output):
        return "no score" if score is None else f"no score: the row {score.message}"
    names = ("prediction", "label", "probability", "threshold", "probabilities")
    return ", ".join(f"{name} {value}" for name in names if (value := getattr(score, name)) is not None)


def _as_registered(reproduction: Reproduction, part: str, message: str) -> str:
    return f"CHANGED: {reproduction.changed[part]}" if part in reproduction.changed else message


def _promoted(reproduction: Reproduction) -> str:
    moved = reproduction.promotion
    if moved is None:
        return "it was not the champion when the job came: the caller named it, or the promotion was not recorded"
    before = "" if moved.from_version is None else f", instead of version {moved.from_version}"
    return f"at {moved.created_at:%Y-%m-%d %H:%M:%S} by {moved.actor}{before}: {moved.reason or 'no reason was given'}"


def _libraries(reproduction: Reproduction) -> str:
    if reproduction.libraries:
        return f"DIFFER from training: {', '.join(reproduction.libraries)}"
    libraries = ", ".join(f"{name} {number}" for name, number in reproduction.version.card.get("libraries", {}).items())
    return f"as at training: {libraries}" if libraries else "the card does not say with which it was trained"


def _row(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("a row is its place in the job, from 0")
    return int(text)

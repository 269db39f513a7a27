"""The commands that change models."""

import argparse
from dataclasses import asdict

from guichet.client import Client
from guichet.command.terminal.console import Console
from guichet.command.terminal.outcomes import DONE
from guichet.errors import Unusable


def promote(client: Client, options: argparse.Namespace, console: Console) -> int:
    """Let an alias mean a version."""
    alias = client.promote(options.model, reason=options.reason, alias=options.alias, force=options.force)
    console.say(f"{alias.model}@{alias.version} is now the {alias.alias} of {alias.model}.")
    return DONE


def roll_back(client: Client, options: argparse.Namespace, console: Console) -> int:
    """Point an alias back to its version before the last move."""
    alias = client.roll_back(options.name, reason=options.reason, alias=options.alias)
    console.say(f"{alias.model}@{alias.version} is the {alias.alias} of {alias.model} again.")
    return DONE


def remove_alias(client: Client, options: argparse.Namespace, console: Console) -> int:
    """Take an alias away."""
    name, _, alias = options.model.partition("@")
    if not name or not alias:
        raise Unusable(f"{options.model!r} names no alias: write it as name@alias, e.g. attrition@challenger.")
    client.remove_alias(name, alias, reason=options.reason)
    console.say(f"{name} has no alias {alias} any more.")
    return DONE


def move(client: Client, options: argparse.Namespace, console: Console) -> int:
    """Archive, restore or delete a version."""
    getattr(client, options.command)(options.model, reason=options.reason)
    outcomes = {"archive": "is archived: it takes no rows until it is restored", "restore": "serves again"}
    console.say(f"{options.model} {outcomes.get(options.command, 'is deleted')}.")
    return DONE


def history(client: Client, options: argparse.Namespace, console: Console) -> int:
    """List how a model's aliases were moved."""
    events = client.history(options.name)
    if options.is_json:
        console.say_json([asdict(event) | {"created_at": event.created_at.isoformat()} for event in events])
        return DONE
    console.table(
        ("WHEN", "ALIAS", "FROM", "TO", "WHO", "WHY"),
        [
            (
                f"{event.created_at:%Y-%m-%d %H:%M:%S}",
                event.alias,
                "" if event.from_version is None else f"@{event.from_version}",
                "" if event.to_version is None else f"@{event.to_version}",
                event.actor,
                event.reason or "",
            )
            for event in events
        ],
    )
    return DONE

"""Misspelt environment variables: without this check, the service would ignore them silently."""

from collections.abc import Iterable, Mapping

_PREFIX = "GUICHET_"
_SHORT = 6  # letters; HOST is one letter from POST and COST, so that short names cannot be told from other people's


def find_misspelt(env: Mapping[str, str], fields: Iterable[str]) -> list[str]:
    """Return a sentence for each variable that is almost a setting while that setting itself is not set."""
    settings = [name.upper() for name in fields]
    variables = {name.upper() for name in env}  # settings may be written in small letters
    faults = []
    for name, value in sorted(env.items()):
        setting = None if name.upper() in settings else _nearest(name.upper(), settings)
        # Kubernetes sets GUICHET_PORT=tcp://... in every pod beside a service of this name.
        if setting is not None and setting not in variables and not value.startswith("tcp://"):
            faults.append(f"{name}: is no setting; write {setting}, or remove it")
    return faults


def _nearest(name: str, settings: list[str]) -> str | None:
    if name.startswith(_PREFIX):
        name = name.removeprefix(_PREFIX)
        if name in settings:
            return name
    for setting in settings:
        if len(setting) > _SHORT and _is_near(name, setting):
            return setting
    return None


def _is_near(name: str, setting: str) -> bool:
    """Return whether the names differ by one letter: missing, added, wrong, or exchanged with its neighbour."""
    if abs(len(name) - len(setting)) > 1:
        return False
    start = 0
    while start < min(len(name), len(setting)) and name[start] == setting[start]:
        start += 1
    rest, target = name[start:], setting[start:]
    return (
        rest[1:] == target[1:]
        or rest == target[1:]
        or rest[1:] == target
        or (rest[:2] == target[1::-1] and rest[2:] == target[2:])
    )

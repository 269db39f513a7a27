"""JSON files of a model's project: the names of its classes, its threshold, and its metrics."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.errors import CardError
from shared.files import read_file

SHOWN = 8  # names that a sentence gives
NAME_LENGTH = 70  # characters of each


def read_labels(path: Path) -> dict[str, str]:
    """Return class -> label from a JSON object; raise CardError for a file without one.

    `{"No": 0, "Yes": 1}`, as people write a LabelEncoder, is turned around: names there lead to classes.
    """
    return labels_of(_read_json(path), str(path))


def labels_of(value: object, source: str) -> dict[str, str]:
    """Return class -> label from a parsed JSON value; raise CardError with the source for other values."""
    if isinstance(value, list) and value and all(isinstance(name, str) for name in value):
        return {str(place): name for place, name in enumerate(value)}
    if not isinstance(value, Mapping) or not value:
        raise CardError(f'{source} names no classes: write {{"0": "No", "1": "Yes"}}, from class to label.')
    if all(isinstance(label, str) for label in value.values()):
        return {str(key): label for key, label in value.items()}
    if all(type(number) is int for number in value.values()) and len(set(value.values())) == len(value):
        return {str(number): key for key, number in sorted(value.items(), key=lambda pair: pair[1])}
    raise CardError(f'{source} gives classes names that are no text: write {{"0": "No", "1": "Yes"}}.')


def read_threshold(path: Path) -> float:
    """Return the threshold in a JSON file: a number, or the one entry of an object whose name contains `threshold`.

    Raises CardError if the file has none or several, or the number is no probability.
    """
    return threshold_of(_read_json(path), str(path))


def threshold_of(content: object, source: str) -> float:
    """Return the threshold from a parsed JSON value, as `read_threshold` does; errors name the source."""
    if isinstance(content, Mapping):
        thresholds = dict(_thresholds(content))
        if "threshold" in thresholds:
            thresholds = {"threshold": thresholds["threshold"]}
        if len(thresholds) != 1:
            names = ", ".join(str(name)[:NAME_LENGTH] for name in list(thresholds or content)[:SHOWN])
            what = "several thresholds" if thresholds else "no threshold"
            raise CardError(f"{source} holds {what} ({names}): give the number itself with --threshold.")
        [content] = thresholds.values()
    if not isinstance(content, int | float) or isinstance(content, bool) or not 0 <= content <= 1:
        raise CardError(f"{source} holds no threshold from 0 to 1: give the number itself with --threshold.")
    return float(content)


def read_metrics(path: Path) -> dict[str, float]:
    """Return the metrics in a JSON file, name -> number; raise CardError for a file without them."""
    return metrics_of(_read_json(path), str(path))


def metrics_of(value: object, source: str) -> dict[str, float]:
    """Return metrics from a parsed JSON value, name -> number; raise CardError with the source for other values."""
    if not isinstance(value, Mapping) or not all(_is_number(number) for number in value.values()):
        raise CardError(f'{source} holds no metrics: write {{"roc_auc": 0.81}}, from name to number.')
    return {str(name): float(number) for name, number in value.items()}


def _thresholds(content: Mapping[Any, Any], place: str = "") -> list[tuple[str, Any]]:
    """Return the numbers whose names contain threshold, with their places, also one object deeper."""
    places: list[tuple[str, Any]] = []
    for key, value in content.items():
        name = str(key)
        if _is_number(value) and ("threshold" in name.lower() or "cutoff" in name.lower()):
            places.append((place + name, value))
        elif isinstance(value, Mapping) and not place:
            places += _thresholds(value, f"{name}.")
    return places


def _is_number(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond float64
        return False


def _read_json(path: Path) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return json.loads(read_file(path, limit=1_000_000))
    except OSError as error:
        raise CardError(f"{path} cannot be read ({error.strerror}): check the path.") from error
    except (ValueError, RecursionError) as error:
        raise CardError(f"{path} is not JSON: write it as JSON, in UTF-8.") from error

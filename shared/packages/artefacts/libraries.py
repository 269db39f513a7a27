"""The libraries that the parts of a fitted estimator come from."""

import functools
import importlib.metadata
from collections.abc import Mapping

from shared.encoding.pipelines import is_estimator, objects_within


def library_versions(estimator: object) -> dict[str, str]:
    """Return the installed versions of the packages that the estimator's parts come from, and of numpy."""
    roots = {"joblib", "numpy"} | {
        type(part).__module__.partition(".")[0]
        for part in objects_within(estimator)
        if part is estimator or is_estimator(part)
    }
    distributions = _distributions()
    names = {name for root in roots for name in distributions.get(root, [])[:1]}
    return {name: importlib.metadata.version(name) for name in sorted(names)}


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    """Return the distributions of each import name; looking through all of them takes a second."""
    return importlib.metadata.packages_distributions()

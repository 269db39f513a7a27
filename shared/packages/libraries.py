"""The parts of a fitted estimator, and the libraries that they come from."""

import functools
import importlib.metadata
from collections.abc import Iterator, Mapping


def library_versions(estimator: object) -> dict[str, str]:
    """Return the installed versions of the packages that the estimator's parts come from, and of numpy."""
    roots = {"joblib", "numpy"} | {type(part).__module__.partition(".")[0] for part in parts(estimator)}
    distributions = _distributions()
    names = {name for root in roots for name in distributions.get(root, [])[:1]}
    return {name: importlib.metadata.version(name) for name in sorted(names)}


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    """Return which distributions each import name comes from; looking through all of them takes a second."""
    return importlib.metadata.packages_distributions()


def parts(estimator: object) -> Iterator[object]:
    """Yield the estimator and, depth first, every transformer or estimator inside it."""
    yield estimator
    inner = [step for _, step in getattr(estimator, "steps", [])]
    inner += [entry[1] for entry in getattr(estimator, "transformers_", [])]
    inner += [step for _, step in getattr(estimator, "transformer_list", [])]
    inner += [getattr(estimator, name, None) for name in ("estimator", "estimator_", "best_estimator_")]
    for part in inner:
        if part is not None and not isinstance(part, str):
            yield from parts(part)

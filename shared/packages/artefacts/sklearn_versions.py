"""Models saved by another scikit-learn: their version, and shims for attributes removed since then.

scikit-learn promises nothing across versions. With what is put back here, pipelines of 1.4 to 1.8 gave under 1.9 the
scores that they gave before, and nothing is believed for that: the registry warns, and compares scores where it is
given some.
"""

import importlib
import sys
import warnings
from collections import UserList
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, TextIO

from shared.encoding.pipelines import objects_within

SCIKIT_LEARN = "scikit-learn"
_ROUNDING = 1e-6  # of shares that sum up to one
_REMOVED = ("_RemainderColsList", "_loss")  # what the errors name that `_put_back` helps with


class RemainderColumns(UserList[Any]):
    """The columns that a ColumnTransformer of 1.5 or 1.6 left over: a list that warned who read it."""


@contextmanager
def recorded_version() -> Iterator[dict[str, str]]:
    """Yield a dict that receives the scikit-learn version of the objects that are unpickled meanwhile.

    It stays empty where that is the installed one, or where the pickle does not say.
    """
    versions: dict[str, str] = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("always", message="Trying to unpickle estimator")
        show = warnings.showwarning

        def note(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            version = getattr(message, "original_sklearn_version", None)
            if version is None:
                show(message, category, filename, lineno, file, line)
            elif version[:1].isdigit():  # before 0.18 none was kept
                versions[SCIKIT_LEARN] = version

        warnings.showwarning = note
        yield versions


def load_with_shims(load: Callable[[BinaryIO], Any], file: BinaryIO) -> Any:  # noqa: ANN401 - estimators share no base class
    """Return the result of `load` on the file, with shims for removed attributes."""
    try:
        return load(file)
    except (AttributeError, ModuleNotFoundError) as error:
        if error.name not in _REMOVED and not any(f"'{name}'" in str(error) for name in _REMOVED):
            raise
        file.seek(0)
        with _shims():
            return load(file)


def patch_attributes(parts: Iterable[object]) -> None:
    """Give the parts of an older model the attributes that the installed scikit-learn looks for."""
    for part in parts:
        # Since 1.8 an imputer keeps the type that it fills with; before, it was the type that it was fitted on.
        if type(part).__module__ == "sklearn.impute._base" and hasattr(part, "statistics_"):
            attributes = vars(part)
            attributes.setdefault("_fill_dtype", attributes.get("_fit_dtype", attributes["statistics_"].dtype))


def reads_otherwise(estimator: object) -> str:
    """Return the part of another scikit-learn's model that the installed one computes differently; else empty.

    It would be read without a complaint and give other scores, wherever in the model it lies. Compared were models of
    1.2 and 1.5 of some sixty kinds: all others give their own scores, or raise.
    """
    for item in objects_within(estimator):
        kind, module = type(item).__name__, type(item).__module__
        if module == "sklearn.tree._tree" and kind == "Tree":
            # Before 1.3 a classification tree counts its rows; later ones hold the shares of the classes there.
            values = item.value  # type: ignore[attr-defined]  # (nodes, outputs, classes)
            if values.shape[2] > 1 and abs(values.sum(axis=2) - 1).max() > _ROUNDING:
                return "trees that count rows where the installed scikit-learn expects shares"
        elif kind == "AdaBoostClassifier" and vars(item).get("algorithm") == "SAMME.R":
            return "an AdaBoostClassifier of the algorithm SAMME.R, which the installed scikit-learn reads as SAMME"
        elif kind in ("LogisticRegression", "LogisticRegressionCV") and _has_other_probabilities(item):
            return (
                f"a {kind} whose probabilities follow from multi_class and solver (one class against the rest, or "
                "multinomial with two classes), which the installed scikit-learn does not look at"
            )
    return ""


def _has_other_probabilities(regression: object) -> bool:
    """Return whether a logistic regression was one of each class against the rest, or of two classes by softmax."""
    attributes = vars(regression)
    chosen = attributes.get("multi_class")
    if len(attributes.get("classes_", ())) <= 2:
        return chosen == "multinomial"
    return chosen in ("ovr", "warn") or (chosen in ("auto", "deprecated") and attributes.get("solver") == "liblinear")


@contextmanager
def _shims() -> Iterator[None]:
    """Hold a class and a module under the names that older pickles call them by; take them away again."""
    columns = importlib.import_module("sklearn.compose._column_transformer")
    is_gone = not hasattr(columns, "_RemainderColsList")  # removed in 1.7
    is_absent = "_loss" not in sys.modules  # losses of boosted trees, which 1.7 and 1.8 saved without their package
    try:
        if is_gone:
            columns._RemainderColsList = RemainderColumns  # type: ignore[attr-defined]
        if is_absent:
            sys.modules["_loss"] = importlib.import_module("sklearn._loss._loss")
        yield
    finally:
        if is_gone:
            del columns._RemainderColsList
        if is_absent:
            del sys.modules["_loss"]

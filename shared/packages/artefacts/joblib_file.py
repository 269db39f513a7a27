"""The content of a joblib file: a fitted estimator, or parts from which one is made without changing a score.

Public projects save more than estimators: a dict of the model with its threshold, a bare Booster, the best of a search.
What can be taken in is turned into an estimator here, in the same way whenever the file is read; all else is refused
in one sentence that says what it is and what to do.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.errors import ArtefactError

TREES = ("lightgbm", "xgboost", "catboost")  # libraries beside scikit-learn whose models are estimators
SERVED = "fitted estimators of scikit-learn, LightGBM, XGBoost and CatBoost, and classes with the same methods"
NOT_SERVED = {  # the package that a model comes from -> what it is
    "torch": "a PyTorch model",
    "keras": "a Keras model",
    "tensorflow": "a TensorFlow model",
    "statsmodels": "a statsmodels result",
    "fastai": "a fastai learner",
    "pytorch_lightning": "a PyTorch Lightning model",
    "lightning": "a PyTorch Lightning model",
    "transformers": "a model of transformers",
    "pyspark": "a Spark model",
    "h2o": "an H2O model",
    "prophet": "a Prophet model",
}
LIBRARIES = {  # module -> package, of libraries whose estimators are served where they are installed
    "catboost": "catboost",
    "category_encoders": "category-encoders",
    "feature_engine": "feature-engine",
    "imblearn": "imbalanced-learn",
    "interpret": "interpret",
    "lightgbm": "lightgbm",
    "mlxtend": "mlxtend",
    "ngboost": "ngboost",
    "optbinning": "optbinning",
    "pygam": "pygam",
    "pyod": "pyod",
    "skl2onnx": "skl2onnx",
    "sklearn_pandas": "sklearn-pandas",
    "sklego": "scikit-lego",
    "skorch": "skorch",
    "skrub": "skrub",
    "sksurv": "scikit-survival",
    "umap": "umap-learn",
    "xgboost": "xgboost",
}
_STARTS = {  # how a file begins that is no joblib file, and what it is
    b"version https://git-lfs.github.com/spec/": (
        "is a pointer of Git LFS, which stands for the file: fetch the file itself with `git lfs pull`"
    ),
    b"/annex/objects/": "is a pointer of git-annex, which stands for the file: fetch the file with `git annex get`",
    b"<!doctype html": "is a web page, not a model: download the file itself (the raw file, where it is on GitHub)",
    b"<html": "is a web page, not a model: download the file itself (the raw file, where it is on GitHub)",
    b"\x89HDF\r\n": "is an HDF5 file, as Keras writes it: this service serves " + SERVED,
    b"tree\nversion=": (
        "is a LightGBM model as text: read it with lightgbm.Booster(model_file=...), and save that with joblib.dump"
    ),
    b"CBM1": "is a CatBoost model: read it with CatBoostClassifier().load_model(...), and save that with joblib.dump",
    b"{": (
        "is JSON and not a joblib file: an XGBoost model is read with XGBClassifier().load_model(...) and saved with "
        "joblib.dump"
    ),
    b"PK\x03\x04": (
        "is a zip archive and not a joblib file: unpack it first, if it holds one (Keras and PyTorch save archives too)"
    ),
}


@dataclass(frozen=True, slots=True)
class Content:
    """The estimator in a file, with the other contents; `notes` describe the assembly, for the person who adds it."""

    estimator: Any
    threshold: float | None = None
    labels: dict[str, str] = field(default_factory=dict)  # class as text -> label
    columns: list[str] | None = None  # the names of the columns of an estimator that knows none
    notes: list[str] = field(default_factory=list)
    booster: Any = None  # a bare Booster that the estimator was made of


def check_start(path: Path, start: bytes) -> None:
    """Raise ArtefactError where the first bytes of a file, some hundred, show that it is no joblib file."""
    lowered = start.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    for begin, what in _STARTS.items():
        if lowered.startswith(begin.lower()):
            raise ArtefactError(f"{path} {what}.")


def content_of(thing: object, path: Path) -> Content:
    """Return the estimator that was read from a file; ArtefactError says what else it is, and what to do.

    Dicts and tuples are searched for an estimator with its preprocessor, threshold, column names and labels. A search
    (GridSearchCV) gives way to the estimator that it found, which it asks itself; a bare Booster is given the methods
    of an estimator.
    """
    if isinstance(thing, Mapping):
        content = _from_parts({str(key): value for key, value in thing.items()}, path)
    elif isinstance(thing, tuple | list):
        content = _from_parts({str(place): value for place, value in enumerate(thing, start=1)}, path)
    else:
        content = Content(thing)
    estimator, notes = _estimator_of(content.estimator, path)
    check_estimator(estimator, path)
    booster = content.estimator if type(content.estimator).__name__ == "Booster" else None
    return Content(estimator, content.threshold, content.labels, content.columns, [*content.notes, *notes], booster)


def check_booster(content: Content, frame: Any) -> None:  # noqa: ANN401 - a DataFrame, or an array
    """Raise ArtefactError where the estimator that a bare Booster became answers otherwise than the Booster itself."""
    if content.booster is None:
        return
    import numpy as np

    data = frame
    if _root(content.booster) == "xgboost":
        import xgboost

        data = xgboost.DMatrix(frame, enable_categorical=True, feature_names=content.booster.feature_names)
    expected = np.asarray(content.booster.predict(data), dtype=np.float64)
    if hasattr(content.estimator, "classes_"):
        answers = content.estimator.predict_proba(frame)
        answers = answers if expected.ndim == 2 else answers[:, 1]
    else:
        answers = content.estimator.predict(frame)
    if expected.shape != answers.shape or not np.allclose(expected, answers, rtol=1e-6, atol=1e-6):
        raise ArtefactError(
            f"The Booster's own predict and {type(content.estimator).__name__} give different answers: save "
            f"the {type(content.estimator).__name__} that was trained, not its Booster."
        )


def check_estimator(estimator: object, path: Path) -> None:
    """Raise ArtefactError where an object cannot be served: not fitted, of no known kind, or with several answers."""
    name = type(estimator).__name__
    for root in _roots(estimator):
        if root in NOT_SERVED:
            raise ArtefactError(f"{path} holds {NOT_SERVED[root]} ({name}): this service serves {SERVED}.")
    if not hasattr(estimator, "predict"):
        if _transforms(estimator):
            raise ArtefactError(
                f"{path} holds a {name}, which transforms rows and predicts nothing: add the model's own file, and "
                "name this one with --preprocessor."
            )
        if hasattr(estimator, "best_params_") or hasattr(estimator, "param_grid"):
            raise ArtefactError(
                f"{path} holds a {name} without the estimator that it found: run it with refit=True, and save its "
                "best_estimator_."
            )
        raise ArtefactError(f"{path} holds {_kind(estimator)} and no model: this service serves {SERVED}.")
    if isinstance(estimator, type):
        raise ArtefactError(f"{path} holds the class {estimator.__name__} itself: save a fitted object of it.")
    if not is_fitted(estimator):
        raise ArtefactError(f"{path} holds a {name} that is not fitted: call its fit, and save it again.")
    if (count := _answers(estimator)) > 1:
        raise ArtefactError(
            f"{path} holds a {name} that gives {count} answers a row: one answer is served. Save a model for each "
            "target (a MultiOutputClassifier holds them as its estimators_), and add each under a name of its own."
        )


def is_fitted(estimator: Any) -> bool:  # noqa: ANN401 - estimators share no base class
    """Return whether an estimator was fitted; an estimator of a library without such a check counts as fitted."""
    if _root(estimator) not in ("sklearn", "imblearn", "lightgbm", "xgboost"):
        return True
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    steps = getattr(estimator, "steps", None)
    if steps:
        return all(is_fitted(step) for _, step in steps if step is not None and not isinstance(step, str))
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        return False
    return True


def behind(preprocessor: Content, model: Content, source: Path, path: Path) -> Content:
    """Return one estimator of a fitted preprocessor and the model that was trained on its output."""
    first = preprocessor.estimator
    makes, takes = _width_after(first), getattr(model.estimator, "n_features_in_", None)
    if makes is not None and takes is not None and makes != takes:
        of = ", ".join(list(getattr(first, "feature_names_in_", []))[:5])
        raise ArtefactError(
            f"{source} makes {makes} columns{f' of {of}' if of else ''}, and the model in {path} takes {takes}: name "
            "the preprocessor that the model was trained behind. Where pandas.get_dummies made some of its columns, "
            "which no file holds, save one ColumnTransformer that makes them all."
        )
    from sklearn.pipeline import Pipeline

    joined = Pipeline([("preprocessor", first), ("model", model.estimator)])
    note = f"Before it comes the preprocessor ({type(first).__name__})."
    return Content(joined, model.threshold, model.labels, None, [*model.notes, note])


def preprocessor_of(thing: object, source: Path) -> Content:
    """Return the fitted transformer in a file; an ArtefactError describes any other content."""
    if isinstance(thing, Mapping | tuple | list):
        values = thing.values() if isinstance(thing, Mapping) else thing
        transformers = [value for value in values if _transforms(value)]
        if len(transformers) != 1:
            raise ArtefactError(
                f"{source} holds {len(transformers)} transformers: save one that makes all columns (a "
                "ColumnTransformer or a Pipeline)."
            )
        thing = transformers[0]
    name = type(thing).__name__
    if name in ("LabelEncoder", "LabelBinarizer"):
        raise ArtefactError(f"{source} holds a {name}, which names the classes: give their names with --labels.")
    if not _transforms(thing):
        raise ArtefactError(f"{source} holds {_kind(thing)} and no preprocessor: name a fitted transformer.")
    if not is_fitted(thing):
        raise ArtefactError(
            f"{source} holds a {name} that is not fitted: save the one that the model was trained behind."
        )
    return Content(thing)


# ── Dicts and tuples ─────────────────────────────────────────────────────────────────────────────────────────────────


def _from_parts(parts: Mapping[str, Any], path: Path) -> Content:
    models = {key: value for key, value in parts.items() if _predicts(value)}
    if not models:
        keys = ", ".join(list(parts)[:8])
        raise ArtefactError(
            f"{path} holds {'nothing' if not parts else f'{keys}'} and no fitted model among them: save the fitted "
            "estimator itself with joblib.dump."
        )
    if len(models) > 1:
        raise ArtefactError(
            f"{path} holds {len(models)} models ({', '.join(list(models)[:8])}): save each in a file of its own, and "
            "add each under a name of its own."
        )
    [(key, model)] = models.items()
    encoders = [value for value in parts.values() if type(value).__name__ == "LabelEncoder"]
    transformers = {name: value for name, value in parts.items() if _transforms(value) and name != key}
    if len(transformers) > 1:
        raise ArtefactError(
            f"{path} holds {len(transformers)} transformers beside the model ({', '.join(list(transformers)[:8])}), "
            "and nothing says which columns each takes: save one Pipeline of a ColumnTransformer and the model."
        )
    threshold, threshold_key = _threshold(parts, path)
    columns, columns_key = _columns(parts)
    notes = [f"The model is what the file calls {key} ({type(model).__name__})."]
    if threshold is not None:
        notes.append(f"Its threshold is {threshold:g}, which the file calls {threshold_key}.")
    labels = _labels(parts, encoders, model)
    if labels:
        notes.append(f"Its classes are called {', '.join(f'{value}={label}' for value, label in labels.items())}.")
    content = Content(model, threshold, labels, columns, notes)
    if transformers:
        [(name, first)] = transformers.items()
        content = behind(Content(first), content, Path(f"{path.name}[{name}]"), path)
        names = [str(column) for column in getattr(first, "feature_names_in_", [])]
        content = Content(content.estimator, threshold, labels, None if names else columns, content.notes)
    elif columns is not None and hasattr(model, "feature_names_in_"):
        content = Content(model, threshold, labels, None, notes)  # it knows them itself
    if content.columns is not None:
        content.notes.append(f"Its {columns_key} are the names of the model's {len(content.columns)} columns.")
    used = {key, threshold_key, columns_key, *transformers}
    left = [name for name in parts if name not in used and not any(parts[name] is encoder for encoder in encoders)]
    if left:
        content.notes.append(f"Not used: {', '.join(left[:8])}.")
    return content


def _threshold(parts: Mapping[str, Any], path: Path) -> tuple[float | None, str | None]:
    for key, value in parts.items():
        if ("threshold" in key.lower() or "cutoff" in key.lower()) and _is_number(value):
            number = float(value)
            if not 0 <= number <= 1:
                raise ArtefactError(
                    f"{path} holds {key} = {number:g}: a threshold is a probability from 0 to 1. Give it with "
                    "--threshold, and leave it out of the file."
                )
            return number, key
    return None, None


def _is_number(value: object) -> bool:
    try:
        return not isinstance(value, bool | str) and math.isfinite(float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def _columns(parts: Mapping[str, Any]) -> tuple[list[str] | None, str | None]:
    for key, value in parts.items():
        if not any(word in key.lower() for word in ("feature", "column")) or isinstance(value, str | Mapping):
            continue
        if isinstance(value, Iterable):
            names = list(value)
            if names and all(isinstance(name, str) for name in names):
                return [str(name) for name in names], key
    return None, None


def _labels(parts: Mapping[str, Any], encoders: Sequence[Any], model: object) -> dict[str, str]:
    """Return labels of the classes: those of a LabelEncoder, or of a mapping from classes, where they fit exactly."""
    classes = getattr(model, "classes_", None)
    if classes is None or getattr(classes, "ndim", 1) != 1:
        return {}
    texts = [str(value) for value in classes]
    for encoder in encoders:
        names = [str(name) for name in encoder.classes_]
        if texts == [str(place) for place in range(len(names))]:
            return dict(zip(texts, names, strict=True))
    for key, value in parts.items():
        if isinstance(value, Mapping) and any(word in key.lower() for word in ("label", "class", "target")):
            labels = label_names(value, texts)
            if labels:
                return labels
    return {}


def label_names(mapping: Mapping[Any, Any], classes: Sequence[str]) -> dict[str, str]:
    """Return class -> label from a mapping either way round, or nothing where it does not name exactly the classes."""
    for pairs in (mapping.items(), [(value, key) for key, value in mapping.items()]):
        labels = {str(value): str(label) for value, label in pairs}
        if set(labels) == set(classes) and len(set(labels.values())) == len(labels):
            return {value: labels[value] for value in classes}
    return {}


# ── Estimators ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _estimator_of(thing: Any, path: Path) -> tuple[Any, list[str]]:  # noqa: ANN401 - estimators share no base class
    kind, root = type(thing).__name__, _root(thing)
    if root in ("lightgbm", "xgboost") and kind == "Booster":
        wrapped = _of_lightgbm(thing) if root == "lightgbm" else _of_xgboost(thing, path)
        return wrapped, [f"The bare Booster of {root} is scored through {type(wrapped).__name__}."]
    if root == "sklearn" and hasattr(thing, "best_estimator_") and hasattr(thing, "cv_results_"):
        return thing.best_estimator_, [
            f"Of the {kind}, the estimator that it found is scored: {type(thing.best_estimator_).__name__}."
        ]
    return thing, []


def _of_lightgbm(booster: Any) -> Any:  # noqa: ANN401
    """Return the estimator around a LightGBM Booster: `predict_proba` or `predict` give the Booster's own answers."""
    import lightgbm
    import numpy as np
    from sklearn.preprocessing import LabelEncoder

    per_row = booster.num_model_per_iteration()
    objective = str(booster.dump_model(num_iteration=1).get("objective", "")).partition(" ")[0]
    if objective in ("binary", "multiclass", "multiclassova"):
        model = lightgbm.LGBMClassifier(objective=objective)
        encoder = LabelEncoder().fit(np.arange(2 if objective == "binary" else per_row))
        model._le, model._classes, model._n_classes = encoder, encoder.classes_, len(encoder.classes_)
    else:
        model = lightgbm.LGBMRegressor(objective=objective or None)
    names = booster.feature_name()
    model._objective = model.objective
    model._Booster, model.fitted_ = booster, True
    model._n_features = model._n_features_in = booster.num_feature()
    # LightGBM calls the columns of an array so; then nobody knows their names.
    model._fitted_with_feature_names = names != [f"Column_{place}" for place in range(len(names))]
    return model


def _of_xgboost(booster: Any, path: Path) -> Any:  # noqa: ANN401
    """Return the estimator around an XGBoost Booster: `predict_proba` or `predict` give the Booster's own answers."""
    import xgboost

    config = json.loads(booster.save_config())["learner"]
    objective = config["objective"]["name"]
    if objective.startswith("rank:") or objective.startswith("survival:"):
        raise ArtefactError(f"{path} holds a Booster for {objective}: this service serves classifiers and regressors.")
    # A Booster asks all its trees; an estimator would stop at the best iteration that is noted in it.
    plain = booster.copy()
    plain.set_attr(best_iteration=None, best_score=None)
    classifies = objective.startswith("multi:") or objective == "binary:logistic"
    model = xgboost.XGBClassifier() if classifies else xgboost.XGBRegressor()
    model.load_model(plain.save_raw("ubj"))
    types = booster.feature_types
    if types is not None and "c" in types:
        model.set_params(enable_categorical=True)
    return model


def _answers(estimator: Any) -> int:  # noqa: ANN401
    """Return the number of answers of an estimator for a row, if it is declared."""
    classes = getattr(estimator, "classes_", None)
    if isinstance(classes, list) and classes and hasattr(classes[0], "__len__") and not isinstance(classes[0], str):
        return len(classes)
    last = estimator.steps[-1][1] if getattr(estimator, "steps", None) else estimator
    if getattr(last, "multilabel_", False) is True:
        return len(last.classes_)
    for name in ("n_outputs_", "n_targets_"):
        count = getattr(last, name, None)
        if isinstance(count, int) and _root(last) == "sklearn" and not hasattr(last, "classes_"):
            return count
    if type(last).__name__ in ("MultiOutputRegressor", "RegressorChain"):
        return len(getattr(last, "estimators_", [last]))
    coefficients = getattr(last, "coef_", None)
    if not hasattr(last, "classes_") and _root(last) == "sklearn" and getattr(coefficients, "ndim", 1) == 2:
        return int(coefficients.shape[0])  # type: ignore[union-attr]
    return 1


def _width_after(transformer: Any) -> int | None:  # noqa: ANN401
    try:
        return len(transformer.get_feature_names_out())
    except Exception:  # noqa: BLE001 - not every transformer knows; then the reference rows tell
        return None


def _predicts(value: object) -> bool:
    if isinstance(value, type):
        return False
    return hasattr(value, "predict") or (_root(value) in ("lightgbm", "xgboost") and type(value).__name__ == "Booster")


def _transforms(value: object) -> bool:
    if isinstance(value, type) or type(value).__name__ in ("LabelEncoder", "LabelBinarizer"):
        return False  # these are for the target
    is_transformer = hasattr(value, "transform") or hasattr(value, "transformers")
    return is_transformer and hasattr(value, "fit") and not _predicts(value)


def _root(thing: object) -> str:
    return type(thing).__module__.partition(".")[0]


def _roots(thing: object) -> list[str]:
    """Return the packages of an object's class and of those that it inherits from."""
    return [kind.__module__.partition(".")[0] for kind in type(thing).__mro__]


def _kind(thing: object) -> str:
    name = type(thing).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"

"""A model folder of MLflow: `MLmodel`, a pickle or skops file, a signature and an input example.

MLflow itself is not needed: MLmodel is YAML (https://mlflow.org/docs/latest/ml/model/), and what is taken in is the
`sklearn` flavour, of which the estimator alone is used.
"""

import importlib.metadata
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from shared.errors import ArtefactError, CardError
from shared.files import read_file
from shared.packages.mlflow.signature import SHOWN
from shared.packages.skops_file import HARMLESS, joblib_of_skops

MLMODEL = "MLmodel"
FLAVOUR = "sklearn"

_PINNED = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*==\s*([^\s;#,]+)")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class MlflowFolder:
    """The fields of MLmodel that the service uses."""

    path: Path
    about: Mapping[str, Any]  # MLmodel itself
    artefact: Path  # the estimator's file
    form: str  # pickle, cloudpickle or skops
    brings_code: bool  # modules of its own that the estimator may need
    libraries: dict[str, str]  # package -> version at training, of all that are pinned
    answers: str  # the method that MLflow's own server calls
    saved_at: datetime | None
    notes: str  # where the model comes from


def read_mlflow_folder(path: Path) -> MlflowFolder:
    """Read MLmodel; raise CardError or ArtefactError without a usable scikit-learn model."""
    about = _read_mlmodel(path / MLMODEL)
    flavours = about.get("flavors")
    if not isinstance(flavours, Mapping):
        raise CardError(f"{path / MLMODEL} names no flavors: it is not whole, save the model again.")
    flavour = flavours.get(FLAVOUR)
    if not isinstance(flavour, Mapping):
        raise CardError(
            f"{path / MLMODEL} has the flavours {', '.join(sorted(map(str, flavours)))} and not {FLAVOUR}: save the "
            "fitted estimator with mlflow.sklearn.save_model (LGBMClassifier and XGBClassifier are scikit-learn "
            "estimators too), or with joblib.dump."
        )
    artefact = _inside(path, flavour.get("pickled_model"))
    form = str(flavour.get("serialization_format") or "pickle")
    if form not in ("pickle", "cloudpickle", "skops"):
        raise ArtefactError(
            f"{path / MLMODEL} says the model is saved as {form[:30]!r}: save it with "
            'serialization_format="skops", "cloudpickle" or "pickle".'
        )
    if artefact is None:
        raise ArtefactError(f"{path / MLMODEL} names no file of its folder as pickled_model: save the model again.")
    if not artefact.is_file():
        raise ArtefactError(f"{artefact} is missing, which {MLMODEL} names: copy the whole folder of the model.")
    served = flavours.get("python_function")
    return MlflowFolder(
        path=path,
        about=about,
        artefact=artefact,
        form=form,
        brings_code=bool(flavour.get("code")),
        libraries=_pinned(path, flavour),
        answers=str((served if isinstance(served, Mapping) else {}).get("predict_fn") or "predict"),
        saved_at=_saved_at(about.get("utc_time_created")),
        notes=_notes(about),
    )


@contextmanager
def joblib_file(folder: MlflowFolder, *, trust: Sequence[str] = ()) -> Iterator[Path]:
    """Yield the estimator's file as joblib reads it: a pickle is one already, skops is written anew for the time.

    `trust` names types that whoever adds the model trusts beside those that skops knows; whom the folder itself says
    it trusts does not count. Raises ArtefactError where a skops file cannot be read, or holds other types.
    """
    if folder.form != "skops":
        yield folder.artefact
        return
    with joblib_of_skops(folder.artefact, trusted=[*HARMLESS, *trust], advice=advice_of(folder)) as path:
        yield path


# ── MLmodel and what lies beside it ──────────────────────────────────────────────────────────────────────────────


class _Loader(yaml.SafeLoader):
    """Takes no aliases: ten lines of them stand for a billion nodes, and MLflow writes none."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Return the next node; raise where it is an alias."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        return super().compose_node(parent, index)


def _read_mlmodel(path: Path) -> Mapping[str, Any]:
    try:
        about = yaml.load(read_file(path), Loader=_Loader)  # noqa: S506 - a SafeLoader that takes less
    # A value that is not of the type that its tag or form says (a 30th of February) raises whatever Python raises.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError, RecursionError) as error:
        raise CardError(f"{path} cannot be read ({type(error).__name__}): save the model again.") from error
    if not isinstance(about, Mapping):
        raise CardError(f"{path} is not what MLflow writes: save the model again.")
    return about


def _inside(folder: Path, name: object) -> Path | None:
    """Return the path of a file that MLmodel names, None where it would lie outside the folder, or cannot be one's."""
    if not isinstance(name, str) or "\x00" in name:
        return None
    path = folder / name
    try:
        path.is_file()
        is_inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a name that no file has: too long, no text, links in a circle
        return None
    return path if is_inside else None


def _pinned(path: Path, flavour: Mapping[str, Any]) -> dict[str, str]:
    """Return the library versions that the folder pins, by the names of their packages."""
    try:
        lines = read_file(path / "requirements.txt").decode().splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    pins = [match.groups() for line in lines if (match := _PINNED.match(line))]
    versions = {name.lower().replace("_", "-"): version for name, version in pins}
    if flavour.get("sklearn_version") is not None:
        versions.setdefault("scikit-learn", str(flavour["sklearn_version"]))
    return versions


def advice_of(folder: MlflowFolder, *, versions: bool = True) -> str:
    """Say which versions the model was saved with, unless that is said, and what else it may need."""
    differing = {
        name: version
        for name, version in folder.libraries.items()
        if name.partition("-")[0] not in ("mlflow", "skops", "cloudpickle") and _installed(name) != version
    }
    advice = ""
    if differing and versions:
        pins = ", ".join(f"{name}=={version}" for name, version in list(differing.items())[:SHOWN])
        advice = f" It was saved with other versions ({pins}): log it again with those that are here."
    if folder.brings_code:
        advice += " The folder brings code of its own: name that folder (mostly `code`) with --code."
    return advice


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def example_of(folder: MlflowFolder, names: Sequence[str] | None) -> list[Row]:
    """Return the rows of the input example by column, none without an example."""
    info = folder.about.get("saved_input_example_info")
    if not isinstance(info, Mapping):
        return []
    path = _inside(folder.path, info.get("artifact_path"))
    try:
        if path is None:
            raise FileNotFoundError
        return _records(json.loads(read_file(path)), names)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CardError(
            f"The input example that {folder.path / MLMODEL} names cannot be read ({type(error).__name__}): give rows "
            "with --reference instead."
        ) from error


def _records(content: Any, names: Sequence[str] | None) -> list[Row]:  # noqa: ANN401 - any JSON value
    """Return rows by column of an example as MLflow writes it: a DataFrame (split), a matrix, records, columns."""
    if isinstance(content, dict) and "data" in content:
        columns = content.get("columns") or names or ()
        return [dict(zip(columns, row, strict=True)) for row in content["data"]] if columns else []
    if isinstance(content, dict) and content.keys() in ({"inputs"}, {"instances"}):
        return _records(next(iter(content.values())), names)
    if isinstance(content, dict):
        if not any(isinstance(value, list) for value in content.values()):
            return [dict(content)]
        return [dict(zip(content, row, strict=True)) for row in zip(*content.values(), strict=True)]
    if all(isinstance(row, dict) for row in content):
        return list(content)
    return [] if names is None else [dict(zip(names, row, strict=True)) for row in content]


def _saved_at(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text)).replace(tzinfo=UTC)
    except ValueError:
        return None


def _notes(about: Mapping[str, Any]) -> str:
    facts = [
        f"{words} {about[key]}"
        for key, words in (("mlflow_version", "MLflow"), ("run_id", "run"), ("model_id", "model"))
        if about.get(key)
    ]
    return f"Taken from a folder that MLflow saved{': ' if facts else ''}{', '.join(facts)}."

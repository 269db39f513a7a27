"""One joblib file from all parts of a model: the model, its preprocessor, and the project's own code.

The artefact of a version is one file with one SHA-256, so what lies apart is joined into it before it is registered.
Code is carried by value (cloudpickle): no process that loads the model needs the module, and two models may each have
a module `features` of their own.
"""

import hashlib
import importlib
import importlib.util
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

from shared.errors import ArtefactError
from shared.packages.artefacts.joblib_file import Content, behind, content_of, preprocessor_of
from shared.packages.package import MODEL_FILE, read_thing


@contextmanager
def assembled(
    artefact: Path, *, preprocessor: Path | None = None, code: Path | None = None, sha256: str | None = None
) -> Iterator[Path]:
    """Yield a joblib file of the artefact behind its preprocessor, with its code; it is there only for the time.

    Without either it is the artefact itself; else that is read only where it has this SHA-256, if one is given. Raises
    ArtefactError where the parts do not fit, or cannot be read.
    """
    if preprocessor is None and code is None:
        yield artefact
        return
    with tempfile.TemporaryDirectory() as drafts:
        path = Path(drafts) / MODEL_FILE
        modules = _Code(code) if code is not None else None
        with modules or nullcontext():
            stand_in = modules.stand_in if modules is not None else None
            content = content_of(read_thing(artefact, stand_in=stand_in, sha256=sha256), artefact)
            if preprocessor is not None:
                first = preprocessor_of(read_thing(preprocessor, stand_in=stand_in), preprocessor)
                content = behind(first, content, preprocessor, artefact)
            if modules is not None:
                modules.dump(_parts_of(content), path)
            else:
                dump(_parts_of(content), path)
        yield path


def dump(thing: object, path: Path) -> None:
    """Write a joblib file whose bytes, and so whose SHA-256, depend on nothing but the object."""
    from joblib.numpy_pickle import NumpyPickler  # heavy

    class Pickler(NumpyPickler):  # type: ignore[misc]
        def memoize(self, value: object) -> None:
            # Whether equal texts are one object, to be written once, depends on what the process did before.
            if not isinstance(value, str):
                super().memoize(value)

    with path.open("wb") as file:
        Pickler(file).dump(thing)


def _parts_of(content: Content) -> Any:  # noqa: ANN401 - an estimator, or a dict that content_of reads again
    more = {"threshold": content.threshold, "labels": content.labels or None, "columns": content.columns}
    more = {key: value for key, value in more.items() if value is not None}
    return {"model": content.estimator, **more} if more else content.estimator


class _Code:
    """The project's own modules, importable while the context lasts and pickled by value meanwhile."""

    def __init__(self, place: Path) -> None:
        if not place.exists() or not (place.is_dir() or (place.is_file() and place.suffix == ".py")):
            raise ArtefactError(f"{place} holds no code: name a .py file, or the folder that holds the modules.")
        self.place = place.resolve()
        self.stand_in: ModuleType | None = None  # what a notebook's own names are looked for in
        self._hidden: dict[str, ModuleType] = {}

    def __enter__(self) -> "_Code":
        folder = self.place if self.place.is_dir() else self.place.parent
        roots = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
        if not self.place.is_dir():
            roots = {self.place.stem}
        # A package of theirs may be called as one of ours is: ours steps aside for the time.
        for name in [name for name in sys.modules if name.partition(".")[0] in roots]:
            self._hidden[name] = sys.modules.pop(name)
        if self.place.is_dir():
            sys.path.insert(0, str(self.place))
            importlib.invalidate_caches()
            return self
        spec = importlib.util.spec_from_file_location(self.place.stem, self.place)
        assert spec is not None
        assert spec.loader is not None
        self.stand_in = importlib.util.module_from_spec(spec)
        sys.modules[self.place.stem] = self.stand_in
        try:
            spec.loader.exec_module(self.stand_in)
        except Exception as error:
            self.__exit__()
            raise ArtefactError(f"{self.place} cannot be run ({type(error).__name__}: {error}): correct it.") from error
        return self

    def __exit__(self, *_: object) -> None:
        for module in self._own():
            sys.modules.pop(module.__name__, None)
        if self.place.is_dir():
            sys.path.remove(str(self.place))
        sys.modules.update(self._hidden)

    def dump(self, thing: object, path: Path) -> None:
        """Write a pickle that holds the classes and functions of these modules themselves."""
        import cloudpickle
        from cloudpickle import cloudpickle as inner

        own = self._own()
        if not own:
            raise ArtefactError(f"Nothing in {self.place} is used by the model: leave --code out.")
        digest = hashlib.sha256()
        for module in own:
            digest.update(module.__name__.encode() + b"\0" + Path(str(module.__file__)).read_bytes() + b"\0")
        classes = [
            value
            for module in own
            for value in vars(module).values()
            if isinstance(value, type) and value.__module__ == module.__name__
        ]
        for kind in classes:
            # cloudpickle would name each class by chance, and the same model would be another file every time.
            inner._DYNAMIC_CLASS_TRACKER_BY_CLASS[kind] = hashlib.sha256(
                digest.digest() + kind.__qualname__.encode()
            ).hexdigest()[:32]
        for module in own:
            cloudpickle.register_pickle_by_value(module)
        try:
            with path.open("wb") as file:
                cloudpickle.dump(thing, file)
        finally:
            for module in own:
                cloudpickle.unregister_pickle_by_value(module)
            for kind in classes:
                # Read again, the file must stand for itself, and not lead back to these classes.
                name = inner._DYNAMIC_CLASS_TRACKER_BY_CLASS.pop(kind, None)
                inner._DYNAMIC_CLASS_TRACKER_BY_ID.pop(name, None)

    def _own(self) -> list[ModuleType]:
        modules = []
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if file is None or name == "__main__":
                continue
            path = Path(file).resolve()
            if path == self.place or (self.place.is_dir() and path.is_relative_to(self.place)):
                modules.append(module)
        return sorted(modules, key=lambda module: module.__name__)

"""Checks of the models: their files are unchanged, and the serving ones can be loaded."""

import time
from collections.abc import Iterator
from importlib.util import find_spec

from sqlalchemy.orm import Session

from api.check.finding import Finding
from api.check.machine import fetches_models
from shared.config.settings import Settings
from shared.errors import GuichetError
from shared.packages.fetching import local_folder, store_address
from shared.packages.package import MODEL_FILE, check_reference, is_complete, references_of, sha256_of
from shared.registry.loading import load
from shared.registry.versions import CHAMPION, aliases_of, list_versions
from shared.registry.watcher import find_packages, no_packages
from shared.tables import ModelVersion


def examine_models(session: Session, settings: Settings, *, loading: bool) -> Iterator[Finding]:
    """Yield a finding for each version with an alias, and one for all the others."""
    if settings.models_uri is not None and fetches_models(settings):
        yield examine_store(settings.models_uri)
    versions, aliases = list_versions(session), aliases_of(session)
    if not versions and settings.models_uri is not None:
        yield Finding("models", "warning", "none is registered yet: the service registers what MODELS_URI holds")
        return
    if not versions:
        how = "add one with `python -m shared.registry add`, or build the examples with `python -m examples.build`"
        yield Finding("models", "failed", f"none is registered: {how}")
        return
    serving = [version for version in versions if CHAMPION in aliases.get(version.id, ())]
    if not serving:
        yield Finding("models", "warning", "no version is a champion: `python -m shared.registry promote` makes one")
    elif settings.default_model and settings.default_model not in {version.name for version in serving}:
        names = ", ".join(sorted({version.name for version in serving}))
        yield Finding("models", "failed", f"DEFAULT_MODEL is {settings.default_model}, and there is: {names}")
    able = find_spec("joblib") is not None
    for version in serving:
        yield _examine(version, settings, loading=loading and able)
    if serving and loading and not able:  # the API of a queue may be installed without them
        yield Finding("models", "ok", "not loaded: the libraries of models are installed where the workers are")
    others = [version for version in versions if version not in serving]
    faults = [finding for version in others if (finding := _examine(version, settings, loading=False)).status != "ok"]
    if others:
        detail = "; ".join(finding.detail for finding in faults) or f"{len(others)} other versions have their files"
        yield Finding("other models", "warning" if faults else "ok", detail)


def examine_store(store: str) -> Finding:
    """Check that the store answers and holds packages; fetched packages serve without it."""
    try:
        count = len(find_packages(store))
    except GuichetError as error:
        return Finding("store", "warning", error.detail)
    return (
        Finding("store", "ok", f"{store}, packages: {count}")
        if count
        else Finding("store", "warning", no_packages(store))
    )


def _examine(version: ModelVersion, settings: Settings, *, loading: bool) -> Finding:
    label = f"{version.name}@{version.version}"
    began = time.perf_counter()
    address = store_address(version, settings.models_uri)
    if address is not None and not is_complete(
        local_folder(version, settings.models), version.sha256, references_of(version)
    ):
        return Finding("model", "warning", f"{label}: is not here yet, and is fetched from {address} when it is needed")
    try:
        if not loading:
            digest = sha256_of(local_folder(version, settings.models) / MODEL_FILE)
            if digest != version.sha256:
                return Finding(
                    "model", "failed", f"{label}: SHA-256 {digest[:12]}…, not {version.sha256[:12]}…: restore the file"
                )
            check_reference(local_folder(version, settings.models), references_of(version))
            return Finding("model", "ok", f"{label}: the file is the one that was registered")
        scorer = load(version, settings.models).scorer.kind
    except GuichetError as error:
        return Finding("model", "failed", f"{label}: {error.detail}")
    except Exception as error:  # noqa: BLE001 - the estimator is anyone's code
        return Finding("model", "failed", f"{label}: {type(error).__name__} while it was loaded: {error}")
    took = time.perf_counter() - began
    return Finding("model", "ok", f"{label}: SHA-256 holds, loaded in {took:.1f} s, scored by {scorer}")

"""`python -m examples.build`: train the example models that are missing and register them; quick when none is.

What is on disk is registered again where the database is new, and trained again only where its file is gone.
"""

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy.exc import ProgrammingError, SQLAlchemyError

from shared.cards.card import Card
from shared.commands.registry import describe
from shared.config.settings import get_settings
from shared.database.engine import session_scope
from shared.database.messages import explain_database_error
from shared.errors import Conflict, GuichetError, NotFound
from shared.packages.contract import apply_contract
from shared.packages.fetching import local_folder, upload_package
from shared.packages.package import CARD_FILE, is_complete
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import add, register
from shared.registry.versions import CHAMPION, list_versions, resolve
from shared.tables import ModelVersion
from shared.views.views import make_views

CONTRACT_FILE = "contract.json"  # of the client for which an example was made
# What an example says itself: its data are made up, and the rows of credit to try leave features out.
OWN = {"attrition": ("description",), "credit": ("missing",)}
NAMES = ("attrition", "credit", "energy", "turnover")


def build(name: str, *, models_dir: Path, native: bool = False) -> tuple[ModelVersion, str]:
    """Return the champion of an example model and what was done: nothing, registered again, or trained.

    It speaks the words of the client for which it was made, unless it shall be `native`, or is registered so already.
    """
    with session_scope(read_only=True) as session:
        try:
            champion = resolve(session, name)
        except NotFound:
            champion = None
        registered = {row.version for row in list_versions(session, name)}
    if champion is not None and is_complete(local_folder(champion, models_dir), champion.sha256):
        return champion, "there already"
    folders = [path.parent for path in (models_dir / name).glob(f"[0-9]*/{CARD_FILE}")]
    unknown = sorted((int(folder.name), folder) for folder in folders if int(folder.name) not in registered)
    if unknown and champion is None:
        for version, folder in unknown:
            with session_scope() as session:
                champion = add(session, folder, AddOptions(version=version, alias=CHAMPION), models_dir=models_dir)
        return champion, "registered again"  # type: ignore[return-value]  # the loop ran at least once
    start = time.perf_counter()
    package = importlib.import_module(f"examples.{name}.train").train()
    contract = Path(__file__).parent / name / CONTRACT_FILE
    if contract.is_file() and not native and (champion is None or champion.card.get("client")):
        package = apply_contract(package, contract, but=OWN[name])
    trained = time.perf_counter() - start
    with session_scope() as session:
        champion = register(session, package, alias=CHAMPION, models_dir=models_dir)
        upload_package(champion, models_dir, get_settings().models_uri)
    return champion, f"trained in {trained:.1f} s"


def make_named_views(row: ModelVersion) -> None:
    """Make the SQL views of a model whose card names them; where they cannot be made, the model serves without."""
    if Card.model_validate(row.card).views is None:
        return
    try:
        with session_scope() as session:
            make_views(session, row.name)
    except Conflict as error:
        print(f"note: {row.name} has no SQL views: {error.detail}", file=sys.stderr)
    except ProgrammingError as error:  # guichet_app makes none
        print(f"note: {row.name} has no SQL views: {explain_database_error(error)}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the examples; return 0, or 1 when one of them could not be (the reason is on stderr)."""
    parser = argparse.ArgumentParser(prog="python -m examples.build", description="Train and register the examples.")
    parser.add_argument("--only", choices=NAMES, metavar="NAME", help=f"one of {', '.join(NAMES)}")
    parser.add_argument(
        "--native", action="store_true", help="in Guichet's own words, and not in those of the examples' clients"
    )
    options = parser.parse_args(arguments)
    for name in [options.only] if options.only else NAMES:
        try:
            row, done = build(name, models_dir=get_settings().models, native=options.native)
            make_named_views(row)
        except GuichetError as error:
            print(f"error: {name}: {error.detail}", file=sys.stderr)
            return 1
        except SQLAlchemyError as error:
            print(f"error: {name}: {explain_database_error(error)}", file=sys.stderr)
            return 1
        print(f"{describe(row, [CHAMPION])}; {done}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A card in the database, of a model that nobody loads, for tests of what is made of cards alone."""

from typing import Any

from sqlalchemy import Engine, delete, update
from sqlalchemy.orm import Session

from shared.cards.card import Card
from shared.cards.features import Feature
from shared.registry.aliases import promote
from shared.tables import ModelAlias, ModelVersion

PEOPLE = [
    Feature(name="age", type="integer", min=16, max=70),
    Feature(name="début", type="integer"),
    Feature(name="salaire", type="number", exclusive_min=0),
    Feature(name="poste", type="string", min_length=1, max_length=60),
    Feature(name="ville", type="string", required=False, nullable=True),
    Feature(name="télétravail", type="boolean", nullable=True),
]


def people(**changes: Any) -> Card:
    """Return the card of a small binary model `m`."""
    facts: dict[str, Any] = {
        "name": "m",
        "version": 1,
        "task": "binary",
        "sha256": "0" * 64,
        "labels": {"0": "Reste", "1": "Part"},
        "features": PEOPLE,
        "rules": ["début < age"],
    }
    return Card(**facts | changes)


def use(engine: Engine, *cards: Card) -> None:
    """Let the database's two model versions have these cards, in their order, and be champions; no others are."""
    with Session(engine) as session, session.begin():
        session.execute(delete(ModelAlias))
        for number, card in enumerate(cards, start=1):
            stored = card.model_dump(mode="json", exclude_none=True)
            values = {"name": card.name, "version": card.version, "card": stored}
            session.execute(update(ModelVersion).where(ModelVersion.id == number).values(values))
            promote(session, card.name, card.version)

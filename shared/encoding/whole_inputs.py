"""Estimators trained without a table: on a sequence of texts, or on a list of dicts.

A vectoriser of texts would score the column names of a DataFrame, without an error.
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from shared.cards.card import Card
from shared.encoding.blocks import Estimator
from shared.encoding.pipelines import first_step
from shared.errors import ArtefactError

Form = Literal["table", "texts", "dicts"]


def takes_texts(estimator: Estimator) -> bool:
    """Return whether scikit-learn's vectorisers of texts come first: the estimator then takes one sequence of texts."""
    first = first_step(estimator, through_wrappers=True)
    if type(first).__name__ == "FeatureUnion":
        parts = [part for _, part in first.transformer_list if not isinstance(part, str)]
        return bool(parts) and all(takes_texts(part) for part in parts)
    return hasattr(first, "build_analyzer")


def takes_dicts(estimator: Estimator) -> bool:
    """Return whether a DictVectorizer, or a FeatureHasher of dicts, comes first."""
    first = first_step(estimator, through_wrappers=True)
    kind = type(first).__name__
    return kind == "DictVectorizer" or (kind == "FeatureHasher" and first.input_type == "dict")


def form_of(card: Card, estimator: Estimator, table: Callable[[Any], Any]) -> Form:
    """Return the estimator's input form; `table` makes a DataFrame of rows.

    Raises ArtefactError where it takes a table and a sequence of texts, and answers differently.
    """
    if takes_dicts(estimator):
        return "dicts"
    if len(card.features) != 1 or card.features[0].type != "string":
        return "table"
    if takes_texts(estimator):
        return "texts"
    first = first_step(estimator, through_wrappers=True)
    if any(hasattr(first, name) for name in ("feature_names_in_", "n_features_in_", "transformers_")):
        return "table"
    # scikit-learn's own note what they were trained on; of the others only the answers tell.
    name = card.features[0].name
    example = str(card.example()[name])
    rows = table([{name: example}, {name: f"{example} {example}"}, {name: f"other {example}"}])
    from_texts, from_table = _answers(estimator, rows[name]), _answers(estimator, rows)
    if from_texts is None or from_table is None:
        is_sklearn = type(first).__module__.startswith("sklearn.")
        return "texts" if from_texts is not None or (from_table is None and is_sklearn) else "table"
    if not np.array_equal(from_texts, from_table):
        raise ArtefactError(
            f"The model answers a DataFrame and a sequence of texts differently, and {type(first).__name__} does not "
            "tell which it was trained on: put a ColumnTransformer before it, and train and save it again."
        )
    return "table"


def _answers(estimator: Estimator, frame: Estimator) -> Estimator:
    """Return as many answers as rows, or None where it gives no such."""
    try:
        answers = np.asarray(getattr(estimator, "predict_proba", estimator.predict)(frame))
    except Exception:  # noqa: BLE001 - anyone's code, which is asked whether it takes this
        return None
    return answers if len(answers) == len(frame) else None

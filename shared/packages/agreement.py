"""The check that a card agrees with its estimator: features, classes, task."""

from typing import get_args

from shared.cards.card import Card, Task
from shared.cards.classes import class_values
from shared.encoding.trained_columns import as_written, dropped_columns, used_names
from shared.errors import CardError


def check_agreement(card: Card, estimator: object) -> None:
    """Raise CardError where the card and the estimator contradict each other: features, classes, task."""
    names = [feature.name for feature in card.features]
    trained = feature_names(estimator)
    count = getattr(estimator, "n_features_in_", None)
    if trained is not None:
        trained = as_written(estimator, trained, names)
        dropped = dropped_columns(estimator)  # a card may describe them; they change nothing
        if trained != [name for name in names if name not in dropped]:
            raise CardError(_names_disagree(card, names, trained))
    elif count is not None and count != len(names):
        raise CardError(
            f"The card of {card.name} lists {len(names)} features and the model was trained on {count}: "
            "list in the card exactly those that it was trained on, in the same order."
        )
    classes = class_names(estimator)
    if (classes is None) != (card.task == "regression"):
        kind = "is a classifier" if classes is not None else "has no classes_"
        raise CardError(f"The card of {card.name} says task {card.task!r} but the model {kind}: correct the task.")
    if classes is not None:
        _check_classes(card, classes)


def task_of(estimator: object) -> str:
    """Return the task that a fitted estimator is for; raise CardError when it predicts nothing."""
    classes = class_names(estimator)
    if classes is not None:
        return "binary" if len(classes) == 2 else "multiclass"
    if not hasattr(estimator, "predict"):
        raise CardError(
            f"{type(estimator).__name__} has neither classes_ nor predict: register a fitted classifier or regressor."
        )
    return "regression"


def check_task(task: str, estimator: object) -> None:
    """Raise CardError when the requested task is unknown or does not match the estimator."""
    if task not in get_args(Task):
        raise CardError(f"The task {task!r} is not known: use one of {', '.join(get_args(Task))}.")
    own = task_of(estimator)
    if task != own:
        classes = class_names(estimator)
        kind = "a regressor" if classes is None else f"a classifier with {len(classes)} classes"
        raise CardError(f"The model is {kind}: its task is {own!r}, not {task!r}. Leave --task out.")


def _names_disagree(card: Card, names: list[str], trained: list[str]) -> str:
    absent = [name for name in trained if name not in names]
    foreign = [name for name in names if name not in trained]
    if not absent and not foreign:
        return (
            f"The card of {card.name} lists the model's features in another order: "
            f"give them as the model was trained, starting with {', '.join(trained[:3])}."
        )
    differences = [f"lacks {', '.join(absent[:5])}"] if absent else []
    differences += [f"names {', '.join(foreign[:5])}, which the model does not know"] if foreign else []
    return (
        f"The card of {card.name} and the model disagree: the card {' and '.join(differences)}. "
        f"List in the card exactly the {len(trained)} features that the model was trained on."
    )


def _check_classes(card: Card, classes: list[str]) -> None:
    task = "binary" if len(classes) == 2 else "multiclass"
    if card.task != task:
        raise CardError(
            f"The card of {card.name} says task {card.task!r} but the model has {len(classes)} classes: "
            f"set the task to {task!r}."
        )
    if card.labels and set(card.labels) != set(classes):
        raise CardError(
            f"The card of {card.name} labels the classes {', '.join(card.labels)} but the model knows "
            f"{', '.join(classes)}: give one label for each class of the model."
        )


def feature_names(estimator: object) -> list[str] | None:
    """Return the names of the columns that reach the estimator, in order; None when it saw a bare array."""
    return used_names(estimator)


def class_names(estimator: object) -> list[str] | None:
    """Return the classes as text, in the order of the model's probabilities; None for a regressor.

    Raises CardError where there are classes of several outputs.
    """
    classes = getattr(estimator, "classes_", None)
    if isinstance(classes, list) and any(hasattr(entry, "__len__") and not isinstance(entry, str) for entry in classes):
        raise CardError(
            f"{type(estimator).__name__} predicts {len(classes)} outputs for each row: several outputs are not served. "
            "Train one model for each of them."
        )
    if classes is None or (len(classes) == 0 and type(estimator).__module__.startswith("catboost.")):
        return None  # a regressor of CatBoost has no classes, and says so with an empty list
    return [str(value) for value in classes]


def with_classes(card: Card, estimator: object) -> Card:
    """Return the card with its labels in the order of the model's classes, and whether those are text.

    JSONB does not keep the order of keys, and a key does not tell "1" from 1.
    """
    classes = class_names(estimator)
    if classes is None:
        return card
    labels = {value: card.labels.get(value, value) for value in classes}
    is_text = all(isinstance(value, str) for value in estimator.classes_)  # type: ignore[attr-defined]
    looks_so = all(isinstance(value, str) for value in class_values(tuple(labels)).values())
    return card.model_copy(update={"labels": labels, "class_type": "string" if is_text and not looks_so else None})

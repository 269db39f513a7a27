"""Categories that gradient boosting learnt itself, from a column of pandas' category type.

Trees split on the place of a category in the training column's list, so a row is scored right only where its column
has the whole list, in the same order, whatever rows are beside it. LightGBM records the lists. XGBoost records them
since 3.1, text beyond ASCII cut at the wrong bytes (dmlc/xgboost pull request 12371 mends that); most of it can be read
back. For older models the list is that of the rows which the model came with, in pandas' order.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.encoding.blocks import Estimator
from shared.encoding.pipelines import objects_within
from shared.errors import ArtefactError

Category = str | int | float | bool


@dataclass(frozen=True, slots=True)
class NativeCategories:
    """The list of one column: a category's code is its place in it."""

    categories: list[Category]
    strict: bool  # XGBoost refuses other categories; LightGBM takes them for missing
    recorded: bool  # by the model itself, so that it is known for sure


def native_categories(
    estimator: Estimator, names: Sequence[str], seen: Mapping[str, Sequence[Category]]
) -> dict[str, NativeCategories]:
    """Return the columns, of those with these names, that must be handed over as categories, each with its list.

    `seen` holds the categories that are known from elsewhere, without nulls and in the order of the training column
    (pandas sorts them). Raises ArtefactError where the model's own list is not known, with what to do.
    """
    columns: dict[str, NativeCategories] = {}
    for booster in boosters(estimator):
        for name, own in _lists_of(booster, names, seen).items():
            if columns.setdefault(name, own).categories != own.categories:
                raise ArtefactError(
                    f"Two parts of the model know different categories of {name}: train them on one DataFrame whose "
                    "category column lists all of them."
                )
    return columns


def boosters(estimator: Estimator) -> Iterator[Estimator]:
    """Yield every Booster of XGBoost or LightGBM inside a fitted estimator, however deep it lies."""
    for item in objects_within(estimator):
        if type(item).__name__ == "Booster" and type(item).__module__.partition(".")[0] in ("xgboost", "lightgbm"):
            yield item


def _lists_of(
    booster: Estimator, names: Sequence[str], seen: Mapping[str, Sequence[Category]]
) -> dict[str, NativeCategories]:
    if type(booster).__module__.startswith("xgboost"):
        return _xgboost_lists(booster, names, seen)
    lists = booster.pandas_categorical or []
    columns = _lightgbm_columns(booster, names, seen, len(lists)) if lists else []
    # A text that is in none of its list's places shows that the columns are not those.
    strange = [
        name
        for name, values in zip(columns, lists, strict=False)
        if (texts := {value for value in seen.get(name, ()) if isinstance(value, str)}) and texts.isdisjoint(values)
    ]
    if len(columns) != len(lists) or strange:
        if not set(booster.feature_name()) & set(names):
            return {}  # a step before it made its columns
        raise ArtefactError(
            f"The LightGBM model has {len(lists)} lists of categories, and it is not known which columns they are of: "
            f"{', '.join(columns[:5]) or 'none'} may be. Train it without ordered category columns of numbers, and "
            "without columns that have one category only."
        )
    return {
        name: NativeCategories([_plain(value) for value in values], strict=False, recorded=True)
        for name, values in zip(columns, lists, strict=True)
    }


def _lightgbm_columns(
    booster: Estimator, names: Sequence[str], seen: Mapping[str, Sequence[Category]], count: int
) -> list[str]:
    """Return the columns that LightGBM was trained with as categories, in its order."""
    infos = booster.dump_model(num_iteration=1)["feature_infos"]
    by_written = {name.replace(" ", "_"): name for name in names}  # LightGBM writes blanks so
    split = [name for name, facts in infos.items() if facts["values"]]
    if len(split) < count:  # of ordered categories, and of one only, LightGBM does not tell: then text is a category
        split += [
            name
            for name in booster.feature_name()
            if name not in split and any(isinstance(value, str) for value in seen.get(by_written.get(name, ""), ()))
        ]
    columns = (by_written.get(name) for name in booster.feature_name() if name in split)
    return [name for name in columns if name is not None]


def _xgboost_lists(
    booster: Estimator, names: Sequence[str], seen: Mapping[str, Sequence[Category]]
) -> dict[str, NativeCategories]:
    written, kinds = booster.feature_names, booster.feature_types
    if written is None or kinds is None or "c" not in kinds:
        return {}
    recorded = _recorded(booster)
    lists = {}
    for place, (own, kind) in enumerate(zip(written, kinds, strict=True)):
        # A ColumnTransformer that gives DataFrames writes its own name before that of the column.
        name = next((label for label in (own, own.partition("__")[2]) if label in names), None)
        if kind != "c" or name is None:
            continue
        others = list(seen.get(name, ()))
        values = recorded.get(own)
        if values is None:
            lists[name] = NativeCategories(_checked(booster, place, name, others), strict=True, recorded=False)
        elif isinstance(values, _Texts):
            lists[name] = NativeCategories(values.read(name, others), strict=True, recorded=True)
        else:
            lists[name] = NativeCategories([_plain(value) for value in values], strict=True, recorded=True)
    return lists


@dataclass(frozen=True, slots=True)
class _Texts:
    """A list of texts as XGBoost records it: their bytes one behind another, and where each ends."""

    ends: list[int]
    data: bytes

    def read(self, name: str, seen: Sequence[Category]) -> list[Category]:
        """Return the texts; categories seen elsewhere complete those that XGBoost cut.

        Such an XGBoost writes where a text ends in characters, reads it in bytes, and keeps as many bytes as there are
        characters.
        """
        starts = [0, *self.ends[:-1]]
        pieces = [self.data[low:high] for low, high in zip(starts, self.ends, strict=True)]
        if self.data.isascii():
            return [piece.decode() for piece in pieces]
        if len(set(pieces)) < len(pieces):
            raise ArtefactError(
                f"XGBoost itself confuses the categories of {name} when it scores, because it cuts text beyond ASCII "
                "at the wrong bytes (its pull request 12371): encode the column in the pipeline, with OneHotEncoder "
                "for example, and train again."
            )
        readings = [reading for reading in (_whole(pieces), self._mended(starts, seen)) if reading is not None]
        readings = [reading for reading in readings if set(seen) <= set(reading)]
        if len(readings) == 1 or (readings and readings[0] == readings[1]):
            return list(readings[0])
        raise ArtefactError(
            f"XGBoost cut text beyond ASCII when it recorded the categories of {name}, and the {len(set(seen))} that "
            f"are known do not complete it: give reference rows in which each of the {len(self.ends)} occurs."
        )

    def _mended(self, starts: list[int], seen: Sequence[Category]) -> list[str] | None:
        text = self.data.decode("utf-8", "ignore")  # what is cut is the end
        if len(text.encode()) < len(self.data) - 3:
            return None
        texts = [text[low:high] for low, high in zip(starts, self.ends, strict=True) if high <= len(text)]
        rest = sorted({str(value) for value in seen} - set(texts))
        whole = [*texts, *rest]
        lengths = [high - low for low, high in zip(starts, self.ends, strict=True)]
        fits = [len(one) for one in whole] == lengths and "".join(whole).startswith(text)
        # Which of several lacking texts comes first is known only where they were sorted, as pandas does.
        sure = len(rest) < 2 or whole == sorted(whole)
        return whole if fits and sure else None


def _whole(pieces: list[bytes]) -> list[str] | None:
    try:
        return [piece.decode() for piece in pieces]
    except UnicodeDecodeError:
        return None


def _recorded(booster: Estimator) -> dict[str, Any]:
    """Return XGBoost's own lists by column, None for a column without one; nothing from an older release."""
    if not hasattr(booster, "get_categories"):
        return {}
    lists: dict[str, Any] = {}
    for name, values in booster.get_categories(export_to_arrow=True).to_arrow():
        if values is None or not len(values):
            lists[name] = None
        elif str(values.type) in ("string", "large_string"):
            _, ends, data = values.buffers()
            wide = np.int64 if str(values.type) == "large_string" else np.int32
            places = np.frombuffer(ends, dtype=wide, count=len(values) + 1).tolist()
            lists[name] = _Texts(places[1:], bytes(data)[: places[-1]])
        else:
            lists[name] = values.to_pylist()
    return lists


def _checked(booster: Estimator, place: int, name: str, seen: list[Category]) -> list[Category]:
    if not seen:
        raise ArtefactError(
            f"XGBoost before 3.1 saved this model without the categories of {name}: give reference rows in which each "
            "of them occurs, or list them in the card."
        )
    last = _largest_code(booster, place)
    if last >= len(seen):
        raise ArtefactError(
            f"XGBoost before 3.1 saved this model without the categories of {name}. It knows at least {last + 1} and "
            f"the reference rows, or the card, have {len(seen)}: give rows in which each of them occurs."
        )
    return seen


def _largest_code(booster: Estimator, place: int) -> int:
    """Return the largest category code at which some tree splits this column; -1 if none does."""
    own = booster.feature_names[place]
    largest = -1
    for tree in booster.get_dump(dump_format="json"):
        waiting = [json.loads(tree)]
        while waiting:
            node = waiting.pop()
            waiting += node.get("children", [])
            if node.get("split") == own and isinstance(node["split_condition"], list):
                largest = max(largest, *node["split_condition"])
    return largest


def _plain(value: Any) -> Category:  # noqa: ANN401 - a numpy scalar or one of Python's
    plain: Category = value.item() if isinstance(value, np.generic) else value
    return plain

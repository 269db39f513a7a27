"""Edge rows lie where a fast path would go wrong first, and are rows that the service accepts."""

import math

import numpy as np

from shared.cards.card import Card
from shared.cards.features import Feature
from shared.scoring.boundary_rows import boundary_rows


def edges(*features, reference=None, origins=(), splits=None, **more):
    card = Card(name="m", version=1, task="regression", sha256="0" * 64, features=list(features), **more)
    return boundary_rows(card, reference or [{feature.name: None for feature in features}], list(origins), splits or {})


def test_values_on_a_threshold_and_beside_it_are_tried():
    pay = Feature(name="pay", type="number")
    made = edges(pay, reference=[{"pay": 3.0}], origins=[("pay", 10.0, 2.0)], splits={0: np.array([0.41])})
    values = {row["pay"] for row in made}
    point = 0.41 * 10.0 + 2.0
    single = float(np.float32(point))
    assert {point, math.nextafter(point, 9), math.nextafter(point, 0), single} <= values
    assert {float(np.nextafter(np.float32(single), np.float32(end))) for end in (9, 0)} <= values


def test_edges_stay_within_the_range_of_the_card():
    age = Feature(name="age", type="integer", min=16, max=70)
    share = Feature(name="share", type="number", exclusive_min=0, exclusive_max=1)
    splits = {0: np.array([15.5, 30.5, 99.5]), 1: np.array([0.0, 0.5, 1.0])}
    origins = [("age", 1.0, 0.0), ("share", 1.0, 0.0)]
    made = edges(age, share, reference=[{"age": 40, "share": 0.4}], origins=origins, splits=splits)
    assert {16, 30, 31, 70} <= {row["age"] for row in made}
    assert all(isinstance(row["age"], int) and 16 <= row["age"] <= 70 for row in made)
    assert all(0 < row["share"] < 1 for row in made)
    assert {math.nextafter(0, 1), math.nextafter(1, 0)} <= {row["share"] for row in made}


def test_unknown_categories_are_tried_only_where_the_card_accepts_them():
    open_ = Feature(name="open", type="string", categories=["a", "b"], min_length=1, max_length=3)
    closed = Feature(name="closed", type="string", categories=["x"], unknown="refuse")
    level = Feature(name="level", type="integer", categories=[1, 2])
    fixed = Feature(name="fixed", type="integer", categories=[1, 2], unknown="refuse")
    flag = Feature(name="flag", type="boolean")
    base = {"open": "a", "closed": "x", "level": 1, "fixed": 2, "flag": True}
    made = edges(open_, closed, level, fixed, flag, reference=[base])
    assert {row["open"] for row in made} == {"a", "b", "?"}
    assert {row["closed"] for row in made} == {"x"}
    assert 3 in {row["level"] for row in made}
    assert {row["fixed"] for row in made} == {1, 2}
    assert {row["flag"] for row in made} == {True, False}


def test_null_is_tried_wherever_the_card_allows_it():
    pay = Feature(name="pay", type="number", nullable=True)
    bonus = Feature(name="bonus", type="number", required=False)
    age = Feature(name="age", type="number")
    base = {"pay": 1.0, "bonus": 2.0, "age": 3.0}
    made = edges(pay, bonus, age, reference=[base])
    assert {"pay": None, "bonus": None, "age": 3.0} in made
    assert base | {"pay": None} in made
    assert all(row["age"] is not None for row in made)
    assert any(row["age"] is None for row in edges(pay, age, reference=[base], missing="null"))

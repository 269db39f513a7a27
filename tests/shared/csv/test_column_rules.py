"""Rules on whole columns: a row that is not doubtful keeps them, whatever the rule."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.cards.features import Feature
from shared.cards.rules import compile_rules, parse_rule
from shared.csv.column_rules import possibly_broken_rows

FEATURES = [
    Feature(name="i", type="integer", nullable=True),
    Feature(name="j", type="integer", nullable=True),
    Feature(name="x", type="number", nullable=True),
    Feature(name="y", type="number", nullable=True),
    Feature(name="b", type="boolean", nullable=True),
]
NAMES = [feature.name for feature in FEATURES]
INTEGERS = st.sampled_from([None, 0, 1, -1, 2, 3, 7, 2**53, -(2**53), 2**52 + 1, 10**9, 94906267])
NUMBERS = st.sampled_from([None, 0.0, -0.0, 0.1, 0.2, 0.3, 1.0, 1.0000001, 1e-7, 2.5, 1e300, -1e308, 5e-324, 9e15])
BOOLEANS = st.sampled_from([None, True, False])
ROWS = st.lists(
    st.fixed_dictionaries({"i": INTEGERS, "j": INTEGERS, "x": NUMBERS, "y": NUMBERS, "b": BOOLEANS}),
    min_size=1,
    max_size=8,
)
LEAVES = st.sampled_from(["i", "j", "x", "y", "2", "0.1", "0", "9007199254740993", "1e16"])


def arithmetic(inner):
    pair = st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda parts: f"({parts[0]} {parts[1]} {parts[2]})")
    three = st.tuples(st.sampled_from(["min", "max"]), inner, inner, inner)
    several = three.map(lambda p: f"{p[0]}({p[1]}, {p[2]}, {p[3]})")
    return pair | several | inner.map(lambda part: f"abs({part})") | inner.map(lambda part: f"-{part}")


def logic(inner):
    pair = st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda parts: f"({' '.join(parts)})")
    return pair | inner.map(lambda part: f"not ({part})")


TERMS = st.recursive(LEAVES, arithmetic, max_leaves=4)
SIGNS = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
COMPARISONS = st.tuples(TERMS, SIGNS, TERMS).map(" ".join) | st.tuples(TERMS, SIGNS, TERMS, SIGNS, TERMS).map(" ".join)
RULES = st.recursive(COMPARISONS | st.just("b"), logic, max_leaves=3).filter(
    lambda text: re.search(r"\b[ijxyb]\b", text)
)


def columns_of(rows):
    return {name: np.array([np.nan if row[name] is None else float(row[name]) for row in rows]) for name in NAMES}


def judged(texts, rows):
    rules = [parse_rule(text, None, FEATURES) for text in texts]
    doubtful = possibly_broken_rows(rules, columns_of(rows))
    holds = [compile_rules([rule], NAMES) for rule in rules]
    truth = [all(hold(row) for hold in holds) for row in rows]
    return [False] * len(rows) if doubtful is None else doubtful.tolist(), truth


@given(st.lists(RULES, min_size=1, max_size=3), ROWS)
def test_row_that_is_not_doubtful_keeps_every_rule(texts, rows):
    doubtful, truth = judged(texts, rows)
    assert all(kept for doubt, kept in zip(doubtful, truth, strict=True) if not doubt)


SMALL = st.integers(-1000, 1000)
EIGHTHS = SMALL.map(lambda n: n / 8)
EVERYDAY = ["i + j <= 10", "x - y == 0.5", "abs(x - 12 * y) <= 6 * y", "b or i > j", "not b", "i / (j * j + 1) < x"]


@given(
    st.sampled_from(EVERYDAY),
    st.lists(
        st.fixed_dictionaries(
            {
                "i": SMALL,
                "j": SMALL,
                "x": SMALL.map(lambda n: n / 8),
                "y": SMALL.map(lambda n: n / 8),
                "b": st.booleans(),
            }
        ),
        min_size=1,
    ),
)
def test_row_of_everyday_numbers_is_doubtful_only_when_it_breaks_the_rule(text, rows):
    doubtful, truth = judged([text], rows)
    assert doubtful == [not kept for kept in truth]


ROW = {"i": 1, "j": 2, "x": 1.0, "y": 2.0, "b": True}


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("x / y > 0", {"y": 0.0}),
        ("x * y > 0", {"x": 1e300, "y": 1e300}),
        ("i + 1 > j", {"i": 2**53, "j": 2**53}),
        ("i * j != 1", {"i": 2**53 - 1, "j": 2**53 - 1}),
        ("i < 9007199254740993", {}),
    ],
)
def test_number_that_float64_may_not_hold_makes_its_row_doubtful(text, changes):
    assert judged([text], [ROW, ROW | changes])[0][1]


def test_rule_with_a_null_operand_is_skipped_and_other_rules_are_not():
    broken = ROW | {"i": 5, "j": 1}
    assert judged(["i < j", "x < y"], [ROW, broken, broken | {"j": None}, broken | {"y": None}])[0] == [0, 1, 0, 1]


def test_rules_that_all_hold_leave_nothing_to_look_at():
    rules = [parse_rule(text, None, FEATURES) for text in ("i < j", "x < y", "1 < 2 and b")]
    assert possibly_broken_rows(rules, columns_of([ROW] * 3)) is None
    assert possibly_broken_rows([], {}) is None

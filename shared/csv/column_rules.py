"""The rules of a card on whole columns: rows that clearly keep them need no check of their own.

Columns are float64. That is exact as long as every intermediate number stays below 2**53, where integers and floats
agree; a row where one does not, or where a division goes wrong, is doubtful. Doubtful is not broken: RowValidator
decides about such a row.
"""

import ast
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.cards.features import LARGEST_INTEGER
from shared.cards.rules import ABSOLUTE, RELATIVE, ParsedRule, variable

Numbers = Any  # a float64 array of all rows, or one float64
Truth = Any  # a boolean array of all rows, or one boolean

OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def possibly_broken_rows(
    rules: Iterable[ParsedRule], columns: Mapping[str, NDArray[np.float64]]
) -> NDArray[np.bool_] | None:
    """Return for each row whether some rule is not plainly kept; None when all are. A null is NaN."""
    suspects: NDArray[np.bool_] | None = None
    for rule in rules:
        sight = _ColumnEvaluator({variable(name): columns[name] for name in rule.names})
        with np.errstate(all="ignore"):
            doubt: NDArray[np.bool_] = ~(sight.truth(rule.condition) & sight.sure)
        doubt = np.broadcast_to(doubt, columns[rule.names[0]].shape)
        if doubt.any():
            present = ~np.isnan([columns[name] for name in rule.names]).any(axis=0)
            suspects = doubt & present if suspects is None else suspects | (doubt & present)
    return suspects


class _ColumnEvaluator:
    """Evaluate one rule's tree, which shared/cards/rules.py built from few kinds of nodes, on all rows at once."""

    def __init__(self, columns: Mapping[str, NDArray[np.float64]]) -> None:
        self.columns = columns
        self.sure: Truth = np.True_  # where float64 and Python's numbers are the same

    def truth(self, node: ast.expr) -> Truth:
        match node:
            case ast.BoolOp(op, values):
                join = operator.and_ if isinstance(op, ast.And) else operator.or_
                result = self.truth(values[0])
                for value in values[1:]:
                    result = join(result, self.truth(value))
                return result
            case ast.UnaryOp(ast.Not(), operand):
                return ~self.truth(operand)
            case ast.Compare(left, [op], [right]):
                return OPERATORS[type(op)](self.number(left), self.number(right))
            case ast.Call(ast.Name(), [left, right]):
                return _close(self.number(left), self.number(right))
            case ast.Name(id=name):
                return self.columns[name] != 0.0
        raise AssertionError(ast.dump(node))

    def number(self, node: ast.expr) -> Numbers:
        match node:
            case ast.Name(id=name):
                return self.columns[name]
            case ast.Constant(int() | float() as value):
                return self._checked(np.float64(value))
            case ast.UnaryOp(ast.USub(), operand):
                return -self.number(operand)
            case ast.UnaryOp(_, operand):
                return self.number(operand)
            case ast.BinOp(left, op, right):
                return self._checked(OPERATORS[type(op)](self.number(left), self.number(right)))
            case ast.Call(ast.Name(id="finite"), [value]):
                return self.number(value)
            case ast.Call(ast.Name(id="abs"), [value]):
                return np.abs(self.number(value))
            case ast.Call(ast.Name(id=function), arguments):
                choose = np.minimum if function == "min" else np.maximum
                best = self.number(arguments[0])
                for argument in arguments[1:]:
                    best = choose(best, self.number(argument))
                return best
        raise AssertionError(ast.dump(node))

    def _checked(self, number: Numbers) -> Numbers:
        self.sure = self.sure & (np.abs(number) < LARGEST_INTEGER)  # false for NaN and infinity too
        return number


def _close(left: Numbers, right: Numbers) -> Truth:
    """Return the result of math.isclose, operation by operation."""
    gap = np.abs(right - left)
    return (gap <= np.abs(RELATIVE * right)) | (gap <= np.abs(RELATIVE * left)) | (gap <= ABSOLUTE)

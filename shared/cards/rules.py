"""Rules between features: a small arithmetic language, checked when the card is read and compiled once.

A rule is written in names of integer, number or boolean features, numbers, `+ - * /`, `abs(x)`,
`min(x, y, ...)`, `max(x, y, ...)`, comparisons (`a <= b <= c` too), `and`, `or` and `not`.
`==` between numbers that need not be integers means equal up to rounding: 1e-9 relative or 1e-6
absolute. A rule with a null operand is skipped; one that divides by zero or overflows is broken.
"""

import ast
import math
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from shared.cards.features import Feature

RELATIVE, ABSOLUTE = 1e-9, 1e-6
LARGEST_RULE = 200  # syntax nodes; deeper trees could exhaust the compiler's stack

Kind = Literal["int", "float", "bool"]
Holds = Callable[[Mapping[str, Any]], bool]
ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div)
COMPARISONS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)
FUNCTIONS = {"abs": abs, "min": min, "max": max}
KINDS: dict[str, Kind] = {"integer": "int", "number": "float", "boolean": "bool"}


class RuleError(ValueError):
    """A rule that does not follow this language; the message names the correction."""


@dataclass(frozen=True, slots=True)
class ParsedRule:
    """A checked rule: its text, the features that it names in order, and its condition as a syntax tree."""

    expression: str
    message: str
    names: tuple[str, ...]
    condition: ast.expr


def parse_rule(expression: str, message: str | None, features: Iterable[Feature]) -> ParsedRule:
    """Check one rule against the features of its card; raise RuleError with what to change."""
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise RuleError(f"`{expression}` is not an expression; write e.g. `a + b <= c`") from None
    if sum(1 for _ in ast.walk(tree)) > LARGEST_RULE:
        raise RuleError(f"`{expression[:80]}...` is too long; split it into several rules")
    reader = Reader(expression, features)
    condition, kind = reader.read(tree)
    if kind != "bool":
        raise RuleError(f"`{expression}` is a number; compare it with something")
    if not reader.names:
        raise RuleError(f"`{expression}` names no feature")
    return ParsedRule(expression, message or f"{expression} must hold", tuple(reader.names), condition)


def compile_rules(rules: Sequence[ParsedRule], may_be_null: Collection[str] = ()) -> Holds:
    """Compile rules into one function of a canonical row that returns whether all of them hold.

    A feature outside `may_be_null` must not be None in the rows. The function never raises on a valid row.
    """
    template = ast.parse(
        "def holds(row):\n"
        "    try:\n"
        "        pass\n"
        "    except (ZeroDivisionError, OverflowError):\n"
        "        return False\n"
        "    return True\n"
    )
    names = dict.fromkeys(name for rule in rules for name in rule.names)
    body: list[ast.stmt] = [assignment(name) for name in names]
    body += [_test(rule, may_be_null) for rule in rules]
    attempt = cast(ast.Try, cast(ast.FunctionDef, template.body[0]).body[0])
    attempt.body = body or attempt.body
    code = compile(ast.fix_missing_locations(template), "<rules of a card>", "exec")
    space: dict[str, Any] = {"__builtins__": {}, **FUNCTIONS, "finite": _finite, "close": _close}
    space |= {"ZeroDivisionError": ZeroDivisionError, "OverflowError": OverflowError}
    exec(code, space)  # noqa: S102  # the tree was built here, node by node, from a whitelist
    return cast(Holds, space["holds"])


def _finite(value: float) -> float:
    """Return the result unless it overflowed, so that an overflow breaks the rule wherever it happens."""
    if -math.inf < value < math.inf:
        return value
    raise OverflowError


def _close(left: float, right: float) -> bool:
    return math.isclose(left, right, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def variable(name: str) -> str:
    """Return the name that a feature has in the tree of a rule."""
    return f"feature_{name}"  # never one of the functions: those have no such prefix


def _load(name: str) -> ast.Name:
    return ast.Name(id=variable(name), ctx=ast.Load())


def assignment(name: str) -> ast.Assign:
    """Return the statement that takes a feature out of the row."""
    item = ast.Subscript(ast.Name("row", ast.Load()), ast.Constant(name), ast.Load())
    return ast.Assign(targets=[ast.Name(id=variable(name), ctx=ast.Store())], value=item)


def _test(rule: ParsedRule, may_be_null: Collection[str]) -> ast.If:
    present: list[ast.expr] = [
        ast.Compare(_load(name), [ast.IsNot()], [ast.Constant(None)]) for name in rule.names if name in may_be_null
    ]
    broken = ast.UnaryOp(ast.Not(), rule.condition)
    test = ast.BoolOp(ast.And(), [*present, broken]) if present else broken
    return ast.If(test=test, body=[ast.Return(ast.Constant(False))], orelse=[])


class Reader:
    """Rebuild a parsed expression from allowed nodes only, and collect the features that it names."""

    what = "rule"
    words = "names of features, numbers, + - * /, abs, min, max, comparisons, and, or, not"

    def __init__(self, expression: str, features: Iterable[Feature]) -> None:
        self.expression = expression
        # Python reads identifiers in Unicode's NFKC form
        self.features = {unicodedata.normalize("NFKC", feature.name): feature for feature in features}
        self.names: list[str] = []

    def read(self, node: ast.expr) -> tuple[ast.expr, Kind]:
        """Return the compiled form of a part of the expression, and its type."""
        match node:
            case ast.BoolOp(op, values):
                return ast.BoolOp(op, [self._condition(value) for value in values]), "bool"
            case ast.UnaryOp(ast.Not() as op, operand):
                return ast.UnaryOp(op, self._condition(operand)), "bool"
            case ast.UnaryOp(ast.USub() | ast.UAdd() as op, operand):
                value, kind = self._number(operand)
                return ast.UnaryOp(op, value), kind
            case ast.BinOp(left, op, right) if isinstance(op, ARITHMETIC):
                return self._arithmetic(left, op, right)
            case ast.Compare(left, ops, comparators) if all(isinstance(op, COMPARISONS) for op in ops):
                return self._comparison([left, *comparators], ops), "bool"
            case ast.Call(ast.Name(id=function), arguments, []) if function in FUNCTIONS:
                return self._call(function, arguments)
            case ast.Constant(int() | float() as value) if not isinstance(value, bool):
                return self._constant(value)
            case ast.Name(id=name):
                return self._feature(name)
        part = ast.get_source_segment(self.expression.strip(), node) or self.expression
        raise RuleError(f"`{part}` is not allowed in the {self.what} `{self.expression}`; use {self.words}")

    def _condition(self, node: ast.expr) -> ast.expr:
        value, kind = self.read(node)
        if kind != "bool":
            raise RuleError(f"`and`, `or` and `not` join comparisons, not numbers, in `{self.expression}`")
        return value

    def _number(self, node: ast.expr) -> tuple[ast.expr, Kind]:
        value, kind = self.read(node)
        if kind == "bool":
            raise RuleError(f"only numbers can be computed with or compared in `{self.expression}`")
        return value, kind

    def _guarded(self, node: ast.expr) -> tuple[ast.expr, Kind]:
        """Read a number at a place where an infinite one would go unnoticed, and stop it there."""
        value, kind = self._number(node)
        if kind == "float" and not isinstance(value, ast.Name | ast.Constant):
            call = ast.Call(ast.Name("finite", ast.Load()), [value], [])
            return call, kind
        return value, kind

    def _arithmetic(self, left: ast.expr, op: ast.operator, right: ast.expr) -> tuple[ast.expr, Kind]:
        first, first_kind = self._number(left)
        if isinstance(op, ast.Div):
            return ast.BinOp(first, op, self._guarded(right)[0]), "float"
        second, second_kind = self._number(right)
        kind: Kind = "int" if first_kind == second_kind == "int" else "float"
        return ast.BinOp(first, op, second), kind

    def _comparison(self, operands: list[ast.expr], ops: list[ast.cmpop]) -> ast.expr:
        values = [self._guarded(operand) for operand in operands]
        pairs = [_pair(left, op, right) for left, op, right in zip(values, ops, values[1:], strict=False)]
        return pairs[0] if len(pairs) == 1 else ast.BoolOp(ast.And(), pairs)

    def _call(self, function: str, arguments: list[ast.expr]) -> tuple[ast.expr, Kind]:
        if (len(arguments) != 1) if function == "abs" else (len(arguments) < 2):
            needs = "one number" if function == "abs" else "two numbers or more"
            raise RuleError(f"{function}() takes {needs} in `{self.expression}`")
        values = [self._guarded(argument) for argument in arguments]
        kind: Kind = "int" if all(kind == "int" for _, kind in values) else "float"
        call = ast.Call(ast.Name(function, ast.Load()), [value for value, _ in values], [])
        return call, kind

    def _constant(self, value: float) -> tuple[ast.expr, Kind]:
        try:
            usable = math.isfinite(value)
        except OverflowError:
            usable = False
        if not usable:
            raise RuleError(f"a number in `{self.expression[:80]}` is too large")
        return ast.Constant(value), "int" if isinstance(value, int) else "float"

    def _feature(self, name: str) -> tuple[ast.expr, Kind]:
        feature = self.features.get(name)
        if feature is None:
            raise RuleError(f"`{self.expression}` names `{name}`, which is not a feature of the card")
        kind = KINDS.get(feature.type)
        if kind is None:
            raise RuleError(f"`{self.expression}` names `{name}`, which is text; rules are about numbers")
        if feature.name not in self.names:
            self.names.append(feature.name)
        return _load(feature.name), kind


def _pair(left: tuple[ast.expr, Kind], op: ast.cmpop, right: tuple[ast.expr, Kind]) -> ast.expr:
    (first, first_kind), (second, second_kind) = left, right
    if isinstance(op, ast.Eq | ast.NotEq) and "float" in (first_kind, second_kind):
        call = ast.Call(ast.Name("close", ast.Load()), [first, second], [])
        return ast.UnaryOp(ast.Not(), call) if isinstance(op, ast.NotEq) else call
    return ast.Compare(first, [op], [second])

"""Derived features: computed from the row by a formula in the card, and not sent by callers.

A formula is written in a rule's language (shared/cards/rules.py) and gives a value. It knows more words: `a if b else
c`, `//`, `%`, `**`, `sqrt`, `exp`, `log`, `log1p`, `log10`, `floor`, `ceil`, `round(x)`, `round(x, 2)`. Comparisons are
true or false, and 1 or 0 where numbers are computed with. Texts are compared (`post == "clerk"`, `post in ("a", "b")`)
and chosen. `feature("monthly income")` means a feature whose name is no name in Python. From null comes null.
"""

import ast
import math
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from shared.cards.features import Feature, FeatureType, read_value
from shared.cards.rules import ABSOLUTE, LARGEST_RULE, RELATIVE, Reader, RuleError, assignment, variable
from shared.faults import Fault, OwnWords, pointer

NUMERIC = ("int", "float", "bool")
MORE_ARITHMETIC = (ast.FloorDiv, ast.Mod)
LARGEST_DIGITS = 15

Kind = Literal["int", "float", "bool", "text"]


@dataclass(frozen=True, slots=True)
class Formula:
    """A compiled formula: the feature that it gives, and the features that it takes."""

    feature: Feature
    names: tuple[str, ...]
    sent_names: tuple[str, ...]  # the features that callers send: a derived operand counts as those that it takes
    may_be_null: bool  # whether the model takes null for the feature
    compute: Callable[[Mapping[str, Any]], Any]

    def value(self, row: Mapping[str, Any]) -> tuple[Any, Fault | None]:
        """Return the feature's canonical value from the other values of the row, or None and the fault."""
        subject = f"{self.feature.name}, which is {self.feature.derived},"
        try:
            value = None if any(row[name] is None for name in self.names) else self.compute(row)
        except (ArithmeticError, ValueError):
            return None, self._fault(f"{subject} cannot be computed from these values: correct {self._sent_list()}")
        if value is None:
            if self.may_be_null:
                return None, None
            return None, self._fault(f"{subject} cannot be computed from null: give {self._sent_list()}")
        if self.feature.type in ("integer", "number") and isinstance(value, bool):
            value = int(value)
        if isinstance(value, float) and not math.isfinite(value):
            return None, self._fault(f"{subject} cannot be computed from these values: correct {self._sent_list()}")
        canonical, fault = read_value(self.feature, value)
        if fault is None:
            return canonical, None
        return None, self._fault(f"{subject} {fault.message}: correct {self._sent_list()}")

    def misfit(self, sent: object, value: object) -> Fault | None:
        """Return the fault of a value that a caller sent for this computed feature."""
        if sent is None or sent == value:
            return None
        numbers = isinstance(sent, int | float) and isinstance(value, int | float)
        if numbers and math.isclose(cast(float, sent), cast(float, value), rel_tol=RELATIVE, abs_tol=ABSOLUTE):
            return None
        message = f"must be left out, or be {self.feature.derived}"
        return Fault(pointer(self.feature.name), "derived", message)

    def _fault(self, sentence: str) -> Fault:
        own = (self.feature.message or {}).get("derived")
        return OwnWords(pointer(self.sent_names[0]), "derived", own or sentence)

    def _sent_list(self) -> str:
        return ", ".join(self.sent_names)


def compile_formulas(
    features: Sequence[Feature], *, takes_null: Callable[[Feature], bool] = lambda _: True
) -> list[Formula]:
    """Return the formulas of derived features, each behind those that it needs; raise RuleError with what to change."""
    waiting = [feature for feature in features if feature.derived is not None]
    origins: dict[str, tuple[str, ...]] = {
        feature.name: (feature.name,) for feature in features if feature.derived is None
    }
    formulas: list[Formula] = []
    parsed = {feature.name: _parse(feature, features) for feature in waiting}
    while waiting:
        ready = [feature for feature in waiting if origins.keys() >= set(parsed[feature.name].names)]
        if not ready:
            names = ", ".join(feature.name for feature in waiting)
            raise RuleError(f"{names} cannot be computed, because each needs itself or another of them")
        for feature in ready:
            reader = parsed[feature.name]
            compute = _compile(reader.tree, reader.names)
            origins[feature.name] = tuple(dict.fromkeys(name for operand in reader.names for name in origins[operand]))
            sent_names = origins[feature.name]
            formulas.append(Formula(feature, tuple(reader.names), sent_names, takes_null(feature), compute))
            waiting.remove(feature)
    return formulas


def formula_type(name: str, expression: str, features: Iterable[Feature]) -> FeatureType:
    """Return the result type of a formula for `name` over these features: comparisons give 1 or 0.

    Raises RuleError with what to change.
    """
    _, kind = _read(name, expression.strip(), features)
    return "string" if kind == "text" else "number" if kind == "float" else "integer"


def _parse(feature: Feature, features: Iterable[Feature]) -> "_FormulaReader":
    reader, kind = _read(feature.name, str(feature.derived).strip(), features)
    fits = {"string": ("text",), "boolean": ("bool",)}.get(feature.type, NUMERIC)
    if kind not in fits:
        raise RuleError(f"the formula of {feature.name} gives {_PHRASES[kind]}, and the feature is {feature.type}")
    return reader


def _read(name: str, expression: str, features: Iterable[Feature]) -> tuple["_FormulaReader", Kind]:
    try:
        tree = ast.parse(expression, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise RuleError(f"`{expression}` is no formula for {name}: write e.g. `a / (b + 1)`") from None
    if sum(1 for _ in ast.walk(tree)) > LARGEST_RULE:
        raise RuleError(f"the formula of {name} is too long: compute part of it in another feature")
    reader = _FormulaReader(expression, features)
    reader.tree, kind = reader.read_value(tree)
    if not reader.names:
        raise RuleError(f"the formula of {name} names no feature: `{expression}`")
    return reader, kind


_PHRASES = {"int": "a number", "float": "a number", "bool": "true or false", "text": "text"}


def _compile(tree: ast.expr, names: Iterable[str]) -> Callable[[Mapping[str, Any]], Any]:
    template = ast.parse("def compute(row):\n    return 0\n")
    function = cast(ast.FunctionDef, template.body[0])
    function.body = [*map(assignment, names), ast.Return(tree)]
    code = compile(ast.fix_missing_locations(template), "<formula of a card>", "exec")
    space: dict[str, Any] = {"__builtins__": {}, "abs": abs, "min": min, "max": max, "finite": _finite, "close": _close}
    space |= {"power": _power, **_FUNCTIONS}
    exec(code, space)  # noqa: S102  # the tree was built here, node by node, from a whitelist
    return cast(Callable[[Mapping[str, Any]], Any], space["compute"])


def _finite(value: float) -> float:
    if -math.inf < value < math.inf:
        return value
    raise OverflowError


def _close(left: float, right: float) -> bool:
    return math.isclose(left, right, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def _power(base: float, exponent: float) -> float:
    return math.pow(base, exponent)  # of floats: it neither grows without end nor becomes complex


def _round(value: float, digits: int = 0) -> float:
    return round(float(value), digits)


_FUNCTIONS: dict[str, Callable[..., float]] = {
    "sqrt": math.sqrt,
    "exp": math.exp,
    "log": math.log,
    "log1p": math.log1p,
    "log10": math.log10,
    "floor": math.floor,
    "ceil": math.ceil,
    "round": _round,
}


class _FormulaReader(Reader):
    """Rebuild a formula from allowed nodes only, and collect the features that it names."""

    tree: ast.expr
    what = "formula"
    words = (
        "names of features, numbers, texts, + - * / // % **, abs, min, max, sqrt, exp, log, log1p, log10, floor, ceil, "
        "round, comparisons, and, or, not, a if b else c"
    )

    def read_value(self, node: ast.expr) -> tuple[ast.expr, Kind]:
        """Return the compiled form of a part of the formula, and its type."""
        match node:
            case ast.IfExp(test, body, orelse):
                first, first_kind = self.read_value(body)
                second, second_kind = self.read_value(orelse)
                if ("text" in (first_kind, second_kind)) and first_kind != second_kind:
                    raise RuleError(f"`{self.expression}` gives text or a number: make it one of them")
                kind = first_kind if first_kind == second_kind else "float"
                return ast.IfExp(self._condition(test), first, second), kind
            case ast.Constant(str() as text):
                return ast.Constant(text), "text"
            case ast.Name(id=name) if self._is_text(name):
                return self._load_text(name), "text"
            case ast.Call(ast.Name(id="feature"), [ast.Constant(str() as name)], []):
                name = unicodedata.normalize("NFKC", name)
                return (self._load_text(name), "text") if self._is_text(name) else self._feature(name)
        return self.read(node)

    def read(self, node: ast.expr) -> tuple[ast.expr, Any]:
        match node:
            case ast.IfExp() | ast.Constant(str()) | ast.Call(ast.Name(id="feature"), [ast.Constant(str())], []):
                return self.read_value(node)
            case ast.Constant(bool() as value):
                return ast.Constant(value), "bool"
            case ast.Compare(left, [op], [right]) if isinstance(op, ast.In | ast.NotIn):
                return self._membership(left, op, right), "bool"
            case ast.Compare(left, [ast.Eq() | ast.NotEq() as op], [right]) if self._gives_text(left):
                return ast.Compare(self._text(left), [op], [self._text(right)]), "bool"
            case ast.BinOp(left, ast.Pow(), right):
                call = ast.Call(ast.Name("power", ast.Load()), [self._guarded(left)[0], self._guarded(right)[0]], [])
                return call, "float"
            case ast.BinOp(left, op, right) if isinstance(op, MORE_ARITHMETIC):
                first, first_kind = self._guarded(left)
                second, second_kind = self._guarded(right)
                return ast.BinOp(first, op, second), "int" if first_kind == second_kind == "int" else "float"
            case ast.Call(ast.Name(id=function), arguments, []) if function in _FUNCTIONS:
                return self._math(function, arguments)
        return super().read(node)

    def _math(self, function: str, arguments: list[ast.expr]) -> tuple[ast.expr, Kind]:
        digits: list[ast.expr] = []
        if function == "round" and len(arguments) == 2:
            match arguments.pop():
                case ast.Constant(int() as count) if 0 <= count <= LARGEST_DIGITS:
                    digits = [ast.Constant(count)]
                case _:
                    raise RuleError(f"round() takes 0 to {LARGEST_DIGITS} digits in `{self.expression}`")
        if len(arguments) != 1:
            raise RuleError(f"{function}() takes one number in `{self.expression}`")
        kind: Kind = "int" if function in ("floor", "ceil") else "float"
        return ast.Call(ast.Name(function, ast.Load()), [self._guarded(arguments[0])[0], *digits], []), kind

    def _number(self, node: ast.expr) -> tuple[ast.expr, Any]:
        value, kind = self.read_value(node)
        if kind == "text":
            raise RuleError(f"only numbers can be computed with in `{self.expression}`")
        if kind == "bool":
            return ast.IfExp(value, ast.Constant(1), ast.Constant(0)), "int"
        return value, kind

    def _condition(self, node: ast.expr) -> ast.expr:
        value, kind = self.read_value(node)
        if kind != "bool":
            raise RuleError(f"`and`, `or`, `not` and `if` take comparisons in `{self.expression}`")
        return value

    def _membership(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> ast.expr:
        if not isinstance(right, ast.Tuple | ast.List | ast.Set) or not right.elts:
            raise RuleError(f'`in` takes a list of texts or numbers in `{self.expression}`, as ("a", "b")')
        if self._gives_text(left):
            value = self._text(left)
            elements = [self._text(element) for element in right.elts]
        else:
            value, _ = self._guarded(left)
            elements = [self._number(element)[0] for element in right.elts]
        if not all(isinstance(element, ast.Constant | ast.UnaryOp) for element in elements):
            raise RuleError(f"`in` takes a list of constants in `{self.expression}`")
        return ast.Compare(value, [op], [ast.Tuple(elements, ast.Load())])

    def _text(self, node: ast.expr) -> ast.expr:
        value, kind = self.read_value(node)
        if kind != "text":
            raise RuleError(f"text is compared with text only in `{self.expression}`")
        return value

    def _gives_text(self, node: ast.expr) -> bool:
        match node:
            case ast.Constant(str()):
                return True
            case ast.Name(id=name) | ast.Call(ast.Name(id="feature"), [ast.Constant(str() as name)], []):
                return self._is_text(name)
            case ast.IfExp(body=body):
                return self._gives_text(body)
        return False

    def _is_text(self, name: str) -> bool:
        feature = self.features.get(unicodedata.normalize("NFKC", name))
        return feature is not None and feature.type == "string"

    def _load_text(self, name: str) -> ast.expr:
        feature = self.features[name]
        if feature.name not in self.names:
            self.names.append(feature.name)
        return ast.Name(id=variable(feature.name), ctx=ast.Load())

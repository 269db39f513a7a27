"""`make client-reference`: write docs/client-reference.md from the docstrings and the parser of the client package.

A test holds it current. The sources are read as text, so that the page is the same whatever Python writes it.
"""

import argparse
import ast
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import guichet
from guichet.command.parser import make_parser

from scripts.checkout import ROOT, write_page

FILE = ROOT / "docs" / "client-reference.md"
_BEFORE = """# Reference of the client

`make client-reference` writes this page from the docstrings and the parser of `client/src/guichet`. How to install and
use both: [guichet-client](../client/README.md).

## The command guichet

Every command takes these options, before or after its name:

"""
_PACKAGE = """
## The package guichet

`AsyncClient` and `AsyncJob` have the same methods as `Client` and `Job`, to be awaited.

"""
_TWINS = {"AsyncClient", "AsyncJob"}
_MADE_BY_OTHERS = {"Job", "Refused", "JobFailed"}  # a caller makes none of these


def render() -> str:
    """Return the page."""
    parser = make_parser()
    [commands] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    everywhere = [action for action in parser._actions if action.option_strings and action.dest not in ("help",)]
    shared = {action.dest for action in everywhere}
    text = _BEFORE + _options(everywhere)
    for name, command in commands.choices.items():
        own = [action for action in command._actions if action.dest not in shared and action.dest != "help"]
        text += f"\n### guichet {name}\n\n{command.description}\n"
        text += f"\n{_options(own)}" if own else ""
    text += _PACKAGE
    for name in sorted(set(guichet.__all__) - _TWINS - {"__version__"}, key=_rank):
        text += _class(name)
    return text.rstrip() + "\n"


def _rank(name: str) -> tuple[int, str]:
    """Order the client and its jobs first, then what they take and return, then errors."""
    first = ("Client", "Job")
    is_error = issubclass(getattr(guichet, name), BaseException)
    return (first.index(name) if name in first else 3 if is_error else 2), name


def _options(actions: list[argparse.Action]) -> str:
    rows = []
    for action in actions:
        value = action.metavar or ("|".join(action.choices) if action.choices else action.dest.upper())
        if isinstance(value, tuple):
            value = " ".join(value)
        names = action.option_strings or [str(value)]
        takes = bool(action.option_strings) and action.nargs != 0
        shown = ", ".join(names) + (f" {value}" if takes else "")
        needed = " (needed)" if action.required and action.option_strings else ""
        rows.append(f"| `{_cell(shown)}`{needed} | {_cell((action.help or '').replace('%%', '%'))} |")
    return "| argument | meaning |\n|---|---|\n" + "\n".join(rows) + "\n"


def _class(name: str) -> str:
    thing = getattr(guichet, name)
    source = inspect.getsourcefile(thing)
    assert source is not None, name
    tree = ast.parse(Path(source).read_text(encoding="utf-8"))
    [node] = [each for each in tree.body if isinstance(each, ast.ClassDef) and each.name == thing.__name__]
    text = f"### {name}\n\n{_docstring(node)}\n\n"
    fields = [each for each in node.body if isinstance(each, ast.AnnAssign) and _is_public(ast.unparse(each.target))]
    if fields:
        text += "Fields: " + ", ".join(_field(each) for each in fields) + ".\n\n"
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name == "__init__" and name not in _MADE_BY_OTHERS:
            text += f"```python\n{_signature(each, name)}\n```\n\n"
    for method in _methods(node):
        is_property = any(ast.unparse(each) == "property" for each in method.decorator_list)
        if is_property:
            returns = f": `{ast.unparse(method.returns)}`" if method.returns else ""
            text += f"**`{method.name}`**{returns}\n\n{_docstring(method)}\n\n"
        else:
            text += f"```python\n{_signature(method)}\n```\n\n{_docstring(method)}\n\n"
    return text


def _field(node: ast.AnnAssign) -> str:
    return f"`{ast.unparse(node.target)}` ({_cell(ast.unparse(node.annotation))})"


def _methods(node: ast.ClassDef) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield the public methods that have a docstring, and the constructor where it has parameters of its own."""
    for each in node.body:
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and _is_public(each.name):
            is_class_method = any(ast.unparse(mark) == "classmethod" for mark in each.decorator_list)
            is_overload = any(ast.unparse(mark) == "overload" for mark in each.decorator_list)
            if ast.get_docstring(each) and not is_class_method and not is_overload:
                yield each


def _signature(method: ast.FunctionDef | ast.AsyncFunctionDef, name: str | None = None) -> str:
    """Return a method's name, parameters and result; `name` is that of the class, for its constructor."""
    method.args.args = [each for each in method.args.args if each.arg != "self"]
    returns = f" -> {ast.unparse(method.returns)}".replace("'", "") if method.returns and name is None else ""
    parts = list(_one_by_one(method.args))
    line = f"{name or method.name}({', '.join(parts)}){returns}"
    if len(line) <= 100:
        return line
    return f"{name or method.name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){returns}"


def _one_by_one(arguments: ast.arguments) -> Iterator[str]:
    """Yield every parameter."""
    defaults = [None] * (len(arguments.args) - len(arguments.defaults)) + list(arguments.defaults)
    yield from (_parameter(*pair) for pair in zip(arguments.args, defaults, strict=True))
    if arguments.vararg:
        yield f"*{ast.unparse(arguments.vararg)}"
    elif arguments.kwonlyargs:
        yield "*"
    yield from (_parameter(*pair) for pair in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True))
    if arguments.kwarg:
        yield f"**{ast.unparse(arguments.kwarg)}"


def _parameter(parameter: ast.arg, default: ast.expr | None) -> str:
    text = ast.unparse(parameter)
    return text if default is None else f"{text} = {ast.unparse(default)}"


def _docstring(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    return ast.get_docstring(node) or ""


def _is_public(name: str) -> bool:
    return not name.startswith("_")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> int:
    """Write the page; with `--print`, only show it."""
    return write_page(FILE, render())


if __name__ == "__main__":
    sys.exit(main())

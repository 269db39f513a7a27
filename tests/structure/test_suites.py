"""Every test belongs to a make target, the long flows to one that CI runs as well."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

# What `make test` does of each long flow, on both runtimes.
KEPT = {
    "tests/contracts/models/test_registering.py": "test_first_version_of_a_name_serves_at_once_and_is_audited",
    "tests/contracts/models/test_training.py": "test_training_becomes_a_candidate_that_no_alias_means",
    "tests/contracts/models/test_promotions.py": "test_promoted_version_decides_and_the_history_says_why",
    "tests/contracts/jobs/test_reproductions.py": "test_decision_comes_out_again",
}


def expression_of(target: str) -> str:
    """Return the marks that a target of the Makefile has pytest choose by, with its variables written out."""
    recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.M)
    assert recipe is not None, target
    chosen = re.search(r'pytest .*?-m "?([\w$() ]+?)"?(?: tests/\w+| -s| --cov| \$\(ARGS\)|$)', recipe[1], re.M)
    assert chosen is not None, recipe[1]
    variables = dict(re.findall(r"^(\w+) = (.*)$", MAKEFILE, re.M))
    return re.sub(r"\$\((\w+)\)", lambda name: variables[name[1]], chosen[1])


def takes(target: str, marks: set[str]) -> bool:
    """Return whether a target runs a test with these marks."""
    terms = expression_of(target).split(" and ")
    return all((term.removeprefix("not ") in marks) != term.startswith("not ") for term in terms)


def marks_in(node: ast.AST) -> set[str]:
    return set(re.findall(r"pytest\.mark\.(\w+)", ast.unparse(node)))


def marked() -> Iterator[tuple[str, str, set[str]]]:
    """Yield the file, the name and the marks of every test function, with those of its file and of single cases."""
    for path in sorted(TESTS.rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        of_file: set[str] = set()
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
                of_file = marks_in(node.value)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                marks = {mark for decorator in node.decorator_list for mark in marks_in(decorator)}
                yield str(path.relative_to(ROOT)), node.name, of_file | marks


SUITES = {"long": "faults", "interop": "interop", "fuzz": "fuzz", "lint": "openapi-lint", "e2e": "e2e"}


def test_test_and_test_long_share_all_tests_without_another_mark():
    for marks in (set(), {"parametrize"}):
        assert [target for target in ("test", "test-long", *SUITES.values()) if takes(target, marks)] == ["test"]
    assert [target for target in ("test", "test-long", *SUITES.values()) if takes(target, {"flow"})] == ["test-long"]
    for mark, target in SUITES.items():
        assert not takes("test", {mark, "flow"})
        assert not takes("test-long", {mark, "flow"})
        assert takes(target, {mark, "flow"})
    for marks in (set(), {"flow"}):
        assert takes("coverage", marks)


def test_every_flow_is_run_by_make_test_long_and_no_other_mark_takes_it_away():
    flows = [(file, name, marks) for file, name, marks in marked() if "flow" in marks]
    assert len(flows) > 20
    assert [(file, name) for file, name, marks in flows if not takes("test-long", marks)] == []


def test_make_test_keeps_one_of_each_long_flow_on_both_runtimes():
    marks = {(file, name): marks for file, name, marks in marked()}
    for file, name in KEPT.items():
        assert takes("test", marks[file, name]), name
        assert "parametrize" not in marks[file, name]  # by `stack` alone: both runtimes


def test_check_and_the_pipeline_run_both():
    check = re.search(r"^check: (.*?) ##", MAKEFILE, re.M)
    assert check is not None
    assert {"test", "test-long"} <= set(check[1].split())
    assert "make check" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    steps = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["test"]["steps"]
    assert "make test test-long" in [step.get("run") for step in steps]


@pytest.mark.parametrize("page", ["README.md", "docs/contributing.md", "docs/engineering.md", "docs/space.md"])
def test_pages_that_name_make_test_name_the_rest(page: str):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert "make test-long" in text or "make test test-long" in text

"""Contracts about the code itself: which way imports go, what is consumed, described, drawn and protected."""

import ast
import asyncio
import functools
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.routing import APIRoute

from api.main import ROUTERS, create_app, serve
from scripts.generate import architecture
from scripts.generate.architecture import LAYERS, charter, rooms
from scripts.local.parts import WORKERS
from shared import errors, tables
from shared.broker.app import TaskName
from shared.broker.names import Lane
from shared.config.settings import Settings
from shared.errors import GuichetError
from tests.e2e.browser import NOT_RUN, has_browser, is_demanded
from tests.support.databases import migrate

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = (
    "api",
    "worker",
    "shared",
    "scripts",
    "deploy",
    "migrations",
    "examples",
    "benchmarks",
    "client",
    "docs",
    ".ci",
    ".github",
)
QUEUE = {
    "RUNTIME": "queue",
    "DATABASE_URL": "postgresql+psycopg2://nobody@127.0.0.1:1/none",
    "REDIS_URL": "redis://127.0.0.1:1/0",
}


def sources(folder: str) -> list[Path]:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files, folder
    return files


def imported(path: Path) -> Iterator[str]:
    """Yield every module that a file imports, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file, parsed once for all tests."""
    return ast.parse(path.read_text())


def python(code: str, **env: str) -> str:
    """Run a piece of Python in a process of its own, as the service starts one; return what it prints."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "HOME", "LANG", "COV"))}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=kept | env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# ── imports go one way ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("api", {"worker", "tests", "scripts", "examples", "benchmarks"}),
        ("worker", {"api", "fastapi", "starlette", "uvicorn", "tests", "scripts", "examples", "benchmarks"}),
        (
            "shared",
            {"api", "worker", "fastapi", "starlette", "uvicorn", "tests", "scripts", "examples", "benchmarks"},
        ),
        ("migrations", {"api", "worker", "tests", "scripts", "examples"}),
        ("deploy", {"api", "worker", "tests", "examples", "benchmarks"}),
        ("deploy/space", {"api", "worker", "shared", "tests", "scripts", "examples", "benchmarks"}),
        ("examples", {"api", "worker", "tests", "scripts", "benchmarks"}),
    ],
)
def test_folder_imports_nothing_that_it_must_not_know(folder, forbidden):
    wrong = [
        f"{path.relative_to(ROOT)}: {module}"
        for path in sources(folder)
        for module in imported(path)
        if module.partition(".")[0] in forbidden
    ]
    assert wrong == []


HEAVY = ("sklearn", "pandas", "scipy", "treelite", "onnxruntime", "skl2onnx", "xgboost", "lightgbm", "joblib")


def loaded_by(module: str, names: tuple[str, ...]) -> str:
    code = f"import sys, {module}; print(*[name for name in {names!r} if name in sys.modules])"
    return python(code, **QUEUE)


def test_api_of_the_queue_runtime_starts_without_the_libraries_of_models():
    assert loaded_by("api.main", (*HEAVY, "worker", "shared.scoring.selection.choose")) == ""


def test_worker_starts_without_the_http_side_and_loads_models_only_after_the_fork():
    # The tasks come with the module of Celery's command.
    assert loaded_by("worker.main, worker.tasks", (*HEAVY, "fastapi", "starlette", "uvicorn", "api")) == ""


def test_status_changes_in_one_file_only():
    """Whoever else writes `state` to jobs goes round the fence."""
    writes = re.compile(r"(UPDATE\s+jobs\s+SET[^;]*\bstate\s*=)|(\.values\([^)]*\bstate\s*=)|(\.state\s*=[^=])", re.S)
    writers = [
        str(path.relative_to(ROOT))
        for folder in ("api", "worker", "shared", "scripts", "examples")
        for path in sources(folder)
        if path != ROOT / "shared" / "jobs" / "transitions.py" and writes.search(path.read_text())
    ]
    writers = [name for name in writers if name != "api/main.py"]  # app.state.services is Starlette's
    assert writers == []


# ── rooms ────────────────────────────────────────────────────────────────────────────────────────────────────────


CLIENT = "client/src/guichet"


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def product_modules() -> dict[str, Path]:
    return {module_of(path): path for package in LAYERS for path in sources(package)}


def client_modules() -> dict[str, Path]:
    return {module_of(path).removeprefix("client.src."): path for path in sources(CLIENT)}


def known_module(name: str, modules: dict[str, Path]) -> str | None:
    """Return the module that an imported name is, or lies in."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None


def imports_between_modules(modules: dict[str, Path] | None = None) -> set[tuple[str, str]]:
    modules = modules or product_modules()
    pairs = {(module, known_module(name, modules)) for module, path in modules.items() for name in imported(path)}
    return {(module, other) for module, other in pairs if other is not None and other != module}


def test_every_file_and_folder_of_a_package_is_in_a_layer():
    for package, layers in LAYERS.items():
        there = {
            path.stem
            for path in (ROOT / package).iterdir()
            if (path.suffix == ".py" and not path.name.startswith("__")) or (path / "__init__.py").exists()
        }
        listed = [name for layer in layers for name in layer]
        assert sorted(listed) == sorted(there), package


def test_room_imports_only_rooms_below_it():
    level = {
        f"{package}.{name}": number
        for package, layers in LAYERS.items()
        for number, layer in enumerate(layers)
        for name in layer
    }
    wrong = []
    for module, other in imports_between_modules():
        room, below = (".".join(name.split(".")[:2]) for name in (module, other))
        if module.endswith("__main__") or room == below or room.split(".")[0] != below.split(".")[0]:
            continue
        if below in level and level[below] >= level[room]:
            wrong.append(f"{module} imports {other}")
    assert wrong == []


def test_no_route_imports_another_route():
    wrong = [pair for pair in imports_between_modules() if all(name.startswith("api.routes.") for name in pair)]
    assert wrong == []


def check_no_circle(pairs: Iterable[tuple[str, str]]) -> None:
    """Raise CycleError, which names the circle, where importers and what they import form one."""
    imports: dict[str, set[str]] = {}
    for module, other in pairs:
        imports.setdefault(module, set()).add(other)
    TopologicalSorter(imports).prepare()


def test_no_files_import_each_other_in_a_circle():
    check_no_circle(imports_between_modules())


@pytest.mark.parametrize("modules", [product_modules, client_modules])
def test_inner_rooms_and_the_files_beside_them_import_each_other_one_way(modules):
    """An inner room counts as a whole: it stands above or below each file and room beside it."""
    pairs = imports_between_modules(modules())
    inner = {module_of(path).removeprefix("client.src.") for path in modules().values() if path.name == "__init__.py"}
    rooms_around = {room.rpartition(".")[0] for room in inner if "." in room}
    for around in rooms_around:
        within = [pair for pair in pairs if all(name.startswith(f"{around}.") for name in pair)]
        members = [[name.removeprefix(f"{around}.").partition(".")[0] for name in pair] for pair in within]
        entries = [module.endswith("__main__") for module, _ in within]
        check_no_circle(
            (one, other)
            for (one, other), is_entry in zip(members, entries, strict=True)
            if one != other and not is_entry
        )


def test_room_has_3_to_14_files():
    """What a folder shows fits into one look: its files, the charter among them; inner rooms count for the least."""
    wrong = []
    for folder in (*LAYERS, "scripts", CLIENT):
        for room in {path.parent for path in sources(folder)}:
            files = len(list(room.glob("*.py")))
            inner = len(list(room.glob("*/__init__.py")))
            if files > 14 or files + inner < 3:
                wrong.append(f"{room.relative_to(ROOT)}: {files} files, {inner} rooms")
    assert wrong == []


def test_every_room_says_what_it_owns_and_what_it_may_import():
    assert len(rooms()) > 20
    folders = ("scripts", "deploy", f"{CLIENT}/flows", f"{CLIENT}/transport", f"{CLIENT}/command/terminal")
    tools = [path.parent for folder in folders for path in (ROOT / folder).rglob("__init__.py")]
    assert len(tools) > 11
    for room in (*rooms(), *tools):
        assert charter(room).count(". ") >= 1, f"{room}: two sentences at least"
    assert architecture.FILE.read_text() == architecture.render(), "run `make architecture`"


PATH_IN_TEXT = re.compile(r"`((?:[a-z]+/)+[\w.-]+\.(?:py|md|sql|yml|toml|json|txt|sh))`")
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")


def test_every_path_and_link_in_the_docs_leads_to_a_file():
    pages = [*ROOT.glob("*.md"), *(path for folder in ("docs", "client") for path in (ROOT / folder).rglob("*.md"))]
    top = {path.name for path in ROOT.iterdir()}
    missing, seen = [], 0
    for page in pages:
        text = page.read_text()
        named = [ROOT / path for path in PATH_IN_TEXT.findall(text) if path.partition("/")[0] in top]
        linked = [page.parent / path for path in LINK.findall(text)]
        seen += len(named) + len(linked)
        missing += [f"{page.relative_to(ROOT)}: {path}" for path in (*named, *linked) if not path.exists()]
    assert seen > 100
    assert missing == []


# ── lanes and tasks ──────────────────────────────────────────────────────────────────────────────────────────────


def test_every_lane_is_consumed_by_a_worker_of_make_run():
    consumed = [lane for lanes in WORKERS.values() for lane in lanes.split(",")]
    assert sorted(consumed) == sorted(lane.value for lane in Lane)


def test_worker_commands_that_are_written_down_consume_every_lane():
    """README, docs and compose files: whoever follows them leaves no queue unconsumed."""
    pattern = re.compile(r"worker\.main(?::app)?\s+worker\b[^\n]*?(?:-Q|--queues)[ =]([a-z,]+)")
    files = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*compose*.y*ml"), *ROOT.glob("Dockerfile*")]
    by_file = {path.name: pattern.findall(path.read_text()) for path in files}
    lanes = {lane for commands in by_file.values() for command in commands for lane in command.split(",")}
    assert lanes <= {lane.value for lane in Lane}
    for path in files:
        if "compose" in path.name and path.suffix != ".md":
            listed = {lane for command in by_file[path.name] for lane in command.split(",")}
            assert listed == {lane.value for lane in Lane}, path.name
    if any(by_file.values()):
        assert lanes == {lane.value for lane in Lane}


@pytest.fixture(scope="module")
def worker_app() -> dict[str, Any]:
    """What a worker's process says of its Celery app and of its clock."""
    code = (
        "import json; from worker.main import app; from worker.schedule import schedule;"
        "from shared.config.settings import get_settings; app.loader.import_default_modules(); c = app.conf;"
        "timed = schedule(get_settings());"
        "print(json.dumps({'tasks': sorted(app.tasks), 'beat': len(c.beat_schedule),"
        "'timed': sorted(t.name for t in timed), 'locks': len({t.lock for t in timed}),"
        "'delivery': [c.task_ignore_result, c.task_acks_late, c.result_backend, c.task_serializer, c.accept_content]}))"
    )
    report: dict[str, Any] = json.loads(python(code, **QUEUE))
    return report


def test_every_task_name_has_a_task_and_every_task_a_name(worker_app):
    names = {value for name, value in vars(TaskName).items() if not name.startswith("_")}
    assert {name for name in worker_app["tasks"] if not name.startswith("celery.")} == names


def test_every_worker_keeps_the_clock_and_no_beat_is_needed(worker_app):
    assert worker_app["beat"] == 0
    timed = ["check_drift", "count_scored_rows", "forget_idempotency_keys", "recover"]
    assert (worker_app["timed"], worker_app["locks"]) == (timed, 4)


def test_delivery_is_left_to_the_table(worker_app):
    assert worker_app["delivery"] == [True, False, None, "json", ["json"]]


# ── everything is described ──────────────────────────────────────────────────────────────────────────────────────


def test_every_setting_is_described_in_a_sentence():
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.rstrip().endswith("."), f"{name}: {field.description}"


def members_with_comments(kind: type[Enum]) -> dict[str, bool]:
    lines = inspect.getsource(kind).splitlines()
    return {member.name: any(re.match(rf"\s+{member.name} = .*  # \w+", line) for line in lines) for member in kind}


@pytest.mark.parametrize("kind", [tables.JobState, tables.JobKind, Lane])
def test_every_member_of_an_enum_has_a_comment(kind):
    assert [name for name, has_comment in members_with_comments(kind).items() if not has_comment] == []


def test_every_module_function_and_class_of_the_product_has_a_docstring():
    silent = []
    for folder in ("api", "worker", "shared", "scripts", "deploy"):
        for path in sources(folder):
            tree = parsed(path)
            nodes: list[ast.AST] = [tree]
            nodes += [n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)]
            for node in nodes:
                name = getattr(node, "name", path.name)
                if not name.startswith("_") and not ast.get_docstring(node):  # type: ignore[arg-type]
                    silent.append(f"{path.relative_to(ROOT)}: {name}")
    assert silent == []


NO_NAMES = {"told", "said", "found", "given", "known", "taken", "meant", "some", "many", "asked", "wanted"}
NAMED_BY_US = (
    "api",
    "worker",
    "shared",
    "scripts",
    "deploy",
    "migrations",
    "examples",
    "benchmarks",
    "client",
    "tests",
)


def names_given_in(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of whatever a file names: functions, classes, parameters, variables, attributes."""
    for node in ast.walk(parsed(path)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield node.lineno, name
            case ast.alias(asname=str(name)):
                yield node.lineno, name


def test_names_are_nouns_of_what_they_hold():
    """`found` may be anything; `rows`, `match` and `message` say what it is."""
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for folder in NAMED_BY_US
        for path in sources(folder)
        for line, name in names_given_in(path)
        if name.strip("_").lower() in NO_NAMES
    ]
    assert wrong == []


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────


def family(kind: type[GuichetError] = GuichetError) -> list[type[GuichetError]]:
    return [kind, *(each for child in kind.__subclasses__() for each in family(child))]


def test_every_error_has_a_code_of_its_own_a_status_and_a_title():
    tree = family()
    codes = [kind.code for kind in tree]
    assert len(set(codes)) == len(codes)
    for kind in tree:
        assert re.fullmatch(r"[a-z_]+", kind.code)
        assert 400 <= kind.status <= 599
        assert kind.title
        assert kind.__doc__


def test_every_error_is_drawn_in_the_tree_of_its_docstring_with_its_status():
    drawn: dict[str, tuple[int, str]] = {}
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"(?P<stem>[│├└─ ]*)(?P<name>[A-Z]\w+)\s*(?P<status>\d{3})?(\s|$)", line)
        if match and (match["stem"] or match["name"] == "GuichetError"):
            drawn[match["name"]] = (len(match["stem"]) // 4, match["status"] or "")
    assert set(drawn) == {kind.__name__ for kind in family()}
    for kind in family():
        depth, status = drawn[kind.__name__]
        assert depth == len(kind.__mro__) - GuichetError.__mro__.__len__()
        if status:
            assert int(status) == kind.status, kind.__name__
        elif kind is not GuichetError:
            assert kind.status == kind.__base__.status  # type: ignore[union-attr]


def test_errors_are_raised_from_the_one_tree():
    """A bare Exception or HTTPException would reach the caller without a code."""
    wrong = []
    for folder in ("api", "worker", "shared"):
        for path in sources(folder):
            for node in ast.walk(parsed(path)):
                if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                    name = getattr(node.exc.func, "id", "")
                    if name in ("Exception", "HTTPException", "RuntimeError", "BaseException"):
                        wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert wrong == []


# ── routes ───────────────────────────────────────────────────────────────────────────────────────────────────────

PROBES = {"/health", "/livez", "/readyz", "/ping", "/v2/health/live", "/v2/health/ready"}  # they have no keys
OPEN = PROBES | {"/", "/version"}


NOBODY = (
    {},
    {"Authorization": "Bearer guichet_nobody"},
    {"Authorization": "Basic Z3VpY2hldDpndWljaGV0"},
    {"X-API-Key": "' OR 1=1 --"},
)


@dataclass
class Locked:
    """What an API that asks for keys, and knows none, says of its routes and to callers without a key."""

    document: dict[str, Any]
    routes: list[tuple[str, str]]  # (method, path)
    answers: dict[tuple[str, str], list[httpx2.Response]]


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Locked:
    folder = tmp_path_factory.mktemp("locked")
    url = f"sqlite:///{folder / 'guichet.db'}"
    migrate(url)
    app = create_app(Settings(runtime="sync", auth="keys", data_dir=folder, database_url=url))
    routes = sorted(
        (method, route.path)
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    )

    async def ask() -> Locked:
        transport = httpx2.ASGITransport(serve(app), raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=transport, base_url="http://x") as http,
        ):
            answers = {}
            for method, path in routes:
                address = path.replace("{version}", "1")
                address = re.sub(r"\{\w+\}", "00000000-0000-7000-8000-000000000000", address)
                answers[method, path] = [await http.request(method, address, headers=headers) for headers in NOBODY]
            return Locked((await http.get("/openapi.json")).json(), routes, answers)

    return asyncio.run(ask())


def test_every_route_asks_for_a_key_unless_it_is_known_to_be_open(locked):
    for (method, path), answers in locked.answers.items():
        for answer in answers:
            if path in OPEN:
                assert answer.status_code != 401, path
            else:
                assert answer.status_code == 401, f"{method} {path}: {answer.status_code} {answer.text}"
                assert answer.headers["www-authenticate"] == "Bearer"
                if path.startswith("/v2"):
                    assert list(answer.json()) == ["error"]
                elif path.endswith("/invocations"):
                    assert list(answer.json()) == ["error_code", "message"]
                else:
                    assert answer.json()["type"] == "urn:guichet:error:unauthorized"
    assert {path for _, path in locked.routes} > OPEN
    assert len(locked.routes) >= 14


def test_every_route_is_documented_with_a_sentence_and_its_refusals(locked):
    documented = {
        (method.upper(), path) for path, operations in locked.document["paths"].items() for method in operations
    }
    assert documented | {("GET", "/")} == set(locked.routes)  # the root leads to /docs, and is not part of the API
    for path, operations in locked.document["paths"].items():
        for method, operation in operations.items():
            assert operation.get("description"), f"{method} {path}"
            if path not in OPEN:
                assert {"401", "403"} <= set(operation["responses"]), f"{method} {path}"


# ── the whole product ────────────────────────────────────────────────────────────────────────────────────────────


def product_files() -> list[Path]:
    made = (".coverage", "coverage.xml", ".git")  # by a test run, or by git for a work tree
    top = [
        path for path in ROOT.iterdir() if path.is_file() and path.name not in made and ".coverage." not in path.name
    ]
    inner = [path for folder in PRODUCT for path in (ROOT / folder).rglob("*") if path.is_file()]
    return [path for path in [*top, *inner] if "__pycache__" not in path.parts and path.stat().st_size < 2_000_000]


def test_no_file_names_a_folder_of_a_developers_machine():
    here = re.compile(rb"(?<![\w.])/(work|home|Users|root|mnt|private)/[\w.-]+/")
    allowed = re.compile(rb"/home/(guichet|app|nonroot|runner)/")  # users inside a container
    wrong = []
    for path in product_files():
        for match in here.finditer(path.read_bytes()):
            if not allowed.match(match[0]):
                wrong.append(f"{path.relative_to(ROOT)}: {match[0].decode()}")
    assert wrong == []


def test_no_file_is_far_too_long_to_have_one_subject():
    long = [
        f"{path.relative_to(ROOT)}: {count}"
        for folder in ("api", "worker", "shared", "scripts")
        for path in sources(folder)
        if (count := len(path.read_text().splitlines())) > 600
    ]
    assert long == []


# ── the browser ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_console_is_opened_in_a_browser_where_that_is_required():
    assert has_browser() or not is_demanded(), NOT_RUN

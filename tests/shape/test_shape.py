"""The project's own source is held to the budgets; and each rule is shown to catch what it is for."""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.shape import rules
from tests.shape.rules import ENVIRONMENT, Source, sources

ROOT = Path(__file__).parents[2]
PROGRAMS = ("services", "operators", "benchmarks", "examples", "protos/generate.py", "docs/generate.py")
EVERYTHING = (*PROGRAMS, "tests")
SERVICES = ("services",)

Rule = Callable[[Source], Iterator[str]]


def contract_methods() -> frozenset[str]:
    """Methods whose meaning stands in a proto file."""
    found = set()
    for path in (ROOT / "protos").rglob("*_api.py"):
        nodes = ast.walk(ast.parse(path.read_text()))
        found |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    return frozenset(found)


def undocumented(source: Source) -> Iterator[str]:
    return rules.undocumented(source, contract_methods())


# Which rule holds where. Tables of test data need no annotation, so tests may have changeable globals.
RULES: list[tuple[Rule, tuple[str, ...]]] = [
    (rules.too_long, EVERYTHING),
    (rules.empty_names, EVERYTHING),
    (rules.no_docstring, EVERYTHING),
    (rules.mutable_globals, PROGRAMS),
    (undocumented, SERVICES),
    (rules.environment, SERVICES),
    (rules.imports_of_tests, SERVICES),
]


@pytest.mark.parametrize(("rule", "folders"), RULES, ids=lambda value: getattr(value, "__name__", ""))
def test_the_project(rule: Rule, folders: tuple[str, ...]) -> None:
    complaints = [complaint for source in sources(ROOT, folders) for complaint in rule(source)]
    assert not complaints, "\n".join(complaints)


def test_every_exception_is_still_needed() -> None:
    touching = {source.path for source in sources(ROOT, SERVICES) if rules.touches_environment(source)}
    assert touching == set(ENVIRONMENT)


DOC = '"""Why."""\n'
LONG_FUNCTION = DOC + "def f():\n" + "    x = 1\n" * 70
LONG_MODULE = DOC + "x = 1\n" * 500
PLANTED: list[tuple[Rule, str, str]] = [
    (rules.too_long, "services/a.py", LONG_FUNCTION),
    (rules.too_long, "services/a.py", LONG_MODULE),
    (rules.too_long, "services/a.py", DOC + "class C:\n    async def f(self):\n" + "        x = 1\n" * 70),
    (rules.empty_names, "services/util.py", DOC),
    (rules.empty_names, "services/key_helpers.py", DOC),
    (rules.empty_names, "services/common/keys.py", DOC),
    (rules.empty_names, "services/base.py", DOC),
    (rules.no_docstring, "services/a.py", "x = 1\n"),
    (rules.mutable_globals, "services/a.py", DOC + "seen = []\n"),
    (rules.mutable_globals, "services/a.py", DOC + "SEEN: dict[str, int] = {}\n"),
    (rules.mutable_globals, "services/a.py", DOC + "SEEN = {x for x in range(3)}\n"),
    (rules.mutable_globals, "services/a.py", DOC + "import collections\nSEEN = collections.defaultdict(list)\n"),
    (rules.mutable_globals, "services/a.py", DOC + "LOCK = asyncio.Lock()\n"),
    (rules.mutable_globals, "services/a.py", DOC + "count = 0\ncount += 1\n"),
    (rules.mutable_globals, "services/a.py", DOC + "count = 0\ndef f():\n    global count\n    count = 1\n"),
    (rules.mutable_globals, "services/a.py", DOC + "@functools.lru_cache(maxsize=None)\ndef f(x):\n    return x\n"),
    (rules.mutable_globals, "services/a.py", DOC + "@cache\ndef f(x):\n    return x\n"),
    (undocumented, "services/a.py", DOC + "class Keys:\n    x = 1\n"),
    (undocumented, "services/a.py", DOC + "def f():\n" + "    x = 1\n" * 11),
    (undocumented, "services/a.py", DOC + 'class K:\n    """K."""\n    def f(self):\n' + "        x = 1\n" * 11),
    (rules.environment, "services/a.py", DOC + "import os\nx = os.environ['X']\n"),
    (rules.environment, "services/a.py", DOC + "from os import getenv\n"),
    (rules.imports_of_tests, "services/a.py", DOC + "from tests.fakes import probes\n"),
    (rules.imports_of_tests, "services/a.py", DOC + "def f():\n    import benchmarks.load\n"),
]


@pytest.mark.parametrize(("rule", "path", "text"), PLANTED)
def test_a_planted_violation_is_caught(tmp_path: Path, rule: Rule, path: str, text: str) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(text)
    [source] = sources(tmp_path, SERVICES)
    assert list(rule(source))


FINE = [
    (rules.too_long, "services/a.py", DOC + "def f():\n" + "    x = 1\n" * 69),
    (rules.too_long, "services/a.py", DOC + "x = 1\n" * 499),
    (rules.empty_names, "services/database.py", DOC),
    (rules.no_docstring, "services/__init__.py", ""),
    (rules.mutable_globals, "services/a.py", DOC + "A: Final = {}\nB: Mapping[str, int] = {}\n__all__ = ['A']\n"),
    (rules.mutable_globals, "services/a.py", DOC + "A = Counter('a', 'A.')\nB = (1, 2)\nC = logger(__name__)\n"),
    (undocumented, "services/a.py", DOC + "class _Hidden:\n    x = 1\ndef f():\n    return 1\n"),
    (undocumented, "services/a.py", DOC + "async def authenticate():\n" + "    x = 1\n" * 11),
    (rules.environment, "services/settings.py", DOC + "import os\nx = os.environ['X']\n"),
]


@pytest.mark.parametrize(("rule", "path", "text"), FINE)
def test_what_is_right_is_left_alone(tmp_path: Path, rule: Rule, path: str, text: str) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(text)
    [source] = sources(tmp_path, SERVICES)
    assert not list(rule(source))


def test_generated_code_is_not_looked_at(tmp_path: Path) -> None:
    folder = tmp_path / "protos" / "modelplane" / "auth" / "v1"
    folder.mkdir(parents=True)
    for name in ("auth_pb2.py", "auth_api.py"):
        (folder / name).write_text("x = []\n")
    assert not list(sources(tmp_path, ("protos",)))


# Imports everything that can be imported without an engine or Ray, and names what touched the world meanwhile.
IMPORT_ALL = """
import importlib, sys
import google.protobuf.descriptor_pool, grpc, opentelemetry.trace, prometheus_client, psycopg_pool, tokenizers, uvicorn

ACTS = {"socket.connect", "socket.bind", "subprocess.Popen", "os.fork", "os.mkdir", "os.remove", "os.rename"}
events = []

def hook(event, arguments):
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if (writes or event in ACTS) and "__pycache__" not in str(arguments[0]):
        events.append((name, event, str(arguments[0])))

sys.addaudithook(hook)
for name in sys.argv[1:]:
    importlib.import_module(name)
print(events)
"""
HEAVY = frozenset(("ray", "torch", "transformers", "vllm"))


def is_light(source: Source) -> bool:
    """Whether importing the module imports no engine and no Ray, which do touch the world."""
    top = ast.Module([node for node in source.tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    return not HEAVY & {name.split(".")[0] for name in rules.imports(source._replace(tree=top))}


def test_importing_does_nothing() -> None:
    light = [
        source.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for source in sources(ROOT, SERVICES)
        if is_light(source) and "/migrations/" not in source.path
    ]
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL, *light], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"

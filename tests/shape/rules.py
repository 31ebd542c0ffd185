"""The budgets and names that the code is held to, as functions from a folder of source to a list of complaints.

Each rule reads the syntax tree only, so that it can be tried on any folder. Layers and the libraries that a
package may import are import-linter's part (`.importlinter`).
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

FUNCTION_LINES = 70
MODULE_LINES = 500
# They say nothing about what is inside.
EMPTY_WORDS = frozenset(("util", "utils", "helper", "helpers", "common", "misc", "base"))

MUTABLE_DISPLAYS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
# What these make can change, or holds state that calls would share.
MUTABLE_MAKERS = frozenset(
    (
        "list",
        "dict",
        "set",
        "bytearray",
        "defaultdict",
        "OrderedDict",
        "ChainMap",
        "deque",
        "Lock",
        "RLock",
        "Semaphore",
        "Event",
        "Condition",
        "Queue",
        "LifoQueue",
        "PriorityQueue",
        "SimpleQueue",
        "local",
        "WeakValueDictionary",
        "WeakKeyDictionary",
        "WeakSet",
        "SimpleNamespace",
        "ThreadPoolExecutor",
        "count",
        "cycle",
    )
)
# An annotation that lets nobody change the value; `Final` alone says so of the name, and by custom of the value.
READ_ONLY = frozenset(("Final", "Mapping", "Sequence", "Collection", "AbstractSet", "Set"))
MEMOS = frozenset(("cache", "lru_cache"))

# Who may touch the environment besides settings, and why.
ENVIRONMENT: Mapping[str, str] = {
    "services/settings.py": "reads it, once",
    "services/allocator.py": "sets what the system and Python read as a process starts, and takes it back",
    "services/telemetry.py": "one of OpenTelemetry's own variables decides whether its SDK is started at all",
    "services/rpc/__init__.py": "sets what gRPC reads when it is imported",
    "services/tokenizer/models.py": "sets what the tokenizers library reads at its first call",
    "services/pools/driver.py": "sets what Ray reads, in the process that is Ray's alone",
    "services/pools/replica.py": "undoes what Ray set in the process, and learns where its machine keeps its files",
    "services/chat_inference/engines/vllm.py": "sets what vLLM reads when it is imported",
    "services/chat_inference/engines/checkpoints.py": "sets what transformers reads when it is imported",
}

# Methods whose meaning is given elsewhere: by `compose`, by Alembic, by logging.
KNOWN = frozenset(("build", "ping", "drain", "upgrade", "format"))


class Source(NamedTuple):
    """A module's path below the root, its lines and its tree."""

    path: str
    lines: int
    tree: ast.Module


def sources(root: Path, folders: Iterable[str]) -> Iterator[Source]:
    """The hand-written modules in these folders (or files) below `root`; generated ones are left out."""
    for folder in folders:
        start = root / folder
        for path in sorted(start.rglob("*.py")) if start.is_dir() else [start] if start.exists() else []:
            if path.name.endswith(("_pb2.py", "_api.py")) and "modelplane" in path.parts:
                continue
            text = path.read_text()
            yield Source(path.relative_to(root).as_posix(), text.count("\n") + 1, ast.parse(text))


Function = ast.FunctionDef | ast.AsyncFunctionDef


def too_long(source: Source) -> Iterator[str]:
    if source.lines > MODULE_LINES + 1:
        yield f"{source.path}: {source.lines - 1} lines, more than {MODULE_LINES}"
    for node in ast.walk(source.tree):
        if isinstance(node, Function):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES:
                yield f"{source.path}:{node.lineno}: {node.name} has {lines} lines, more than {FUNCTION_LINES}"


def empty_names(source: Source) -> Iterator[str]:
    for part in Path(source.path).with_suffix("").parts:
        if words := EMPTY_WORDS & set(part.lower().split("_")):
            yield f"{source.path}: {', '.join(words)} says nothing about what is inside"


def mutable_globals(source: Source) -> Iterator[str]:
    for node in source.tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            annotation = node.annotation if isinstance(node, ast.AnnAssign) else None
            names = [ast.unparse(target) for target in ([node.target] if annotation else node.targets)]  # type: ignore[union-attr]
            if names != ["__all__"] and _is_mutable(node.value) and not _is_read_only(annotation):
                yield f"{source.path}:{node.lineno}: {names[0]} can change; annotate it as Mapping, Sequence or Final"
        elif isinstance(node, ast.AugAssign):
            yield f"{source.path}:{node.lineno}: a module's variable changes"
    for inner in ast.walk(source.tree):
        if isinstance(inner, ast.Global):
            yield f"{source.path}:{inner.lineno}: `global` makes a module's variable change"
        elif isinstance(inner, Function) and any(_called(decorator) in MEMOS for decorator in inner.decorator_list):
            yield f"{source.path}:{inner.lineno}: {inner.name} remembers in a global what it was called with"


def _called(node: ast.expr) -> str:
    """The last name of what is called: `deque` of `collections.deque(...)`."""
    if isinstance(node, ast.Call | ast.Subscript):
        return _called(node.func if isinstance(node, ast.Call) else node.value)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _is_mutable(value: ast.expr) -> bool:
    return isinstance(value, MUTABLE_DISPLAYS) or (isinstance(value, ast.Call) and _called(value) in MUTABLE_MAKERS)


def _is_read_only(annotation: ast.expr | None) -> bool:
    return annotation is not None and _called(annotation) in READ_ONLY


def no_docstring(source: Source) -> Iterator[str]:
    if source.tree.body and not ast.get_docstring(source.tree):
        yield f"{source.path}: has no docstring that says why it exists"


def undocumented(source: Source, plain: frozenset[str]) -> Iterator[str]:
    """Public classes, and public functions that take more than a screenful of thought, say what they do.

    `plain` names methods that are explained elsewhere: those of the contracts.
    """
    owners: list[ast.Module | ast.ClassDef] = [source.tree]
    owners += [node for node in source.tree.body if isinstance(node, ast.ClassDef)]
    for owner in owners:
        hidden = isinstance(owner, ast.ClassDef) and owner.name.startswith("_")
        for node in owner.body:
            if hidden or not isinstance(node, ast.ClassDef | Function) or node.name.startswith("_"):
                continue
            wanted = isinstance(node, ast.ClassDef) or (node.name not in plain | KNOWN and _needs_words(node))
            if wanted and not ast.get_docstring(node):
                yield f"{source.path}:{node.lineno}: {node.name} has no docstring"


def _needs_words(function: Function) -> bool:
    """A short body says itself what it does; a protocol's method has none."""
    lines = (function.end_lineno or function.lineno) - function.body[0].lineno + 1
    return lines > 10


def environment(source: Source) -> Iterator[str]:
    if source.path not in ENVIRONMENT and touches_environment(source):
        yield f"{source.path}: touches the environment; a value belongs into a group of settings"


def touches_environment(source: Source) -> bool:
    names = {"environ", "getenv", "putenv", "environb"}
    return any(
        (isinstance(node, ast.Attribute) and node.attr in names)
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and names & {alias.name for alias in node.names})
        for node in ast.walk(source.tree)
    )


def imports(source: Source) -> Iterator[str]:
    """The names of all modules that it imports, anywhere in it."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def imports_of_tests(source: Source) -> Iterator[str]:
    for name in imports(source):
        if name.split(".")[0] in ("tests", "benchmarks", "examples", "pytest", "hypothesis"):
            yield f"{source.path}: imports {name}, which is not installed with the platform"

"""Makes the reference pages from the code, so that they cannot disagree with it.

The words are those that stand beside the settings, the faults and the metrics. Run by `make docs`; a test fails
when a page in the tree is not what this makes (`--check`).
"""

import ast
import sys
from collections.abc import Iterator
from importlib import import_module
from inspect import cleandoc
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from services.catalog import ModelSpec, ScriptSpec, ThinkingSpec, VisionSpec
from services.faults import FAULTS
from services.graph import SERVICES
from services.ratelimit.settings import LimitGroup, LimitsTable
from services.settings import PREFIX, Group, PlatformSettings

DOCS = Path(__file__).parent
ROOT = DOCS.parent
NOTE = "<!-- Made by docs/generate.py (`make docs`). Do not edit. -->\n\n"

CONFIGURATION: Final = """# Configuration

Modelplane is configured by environment variables, read once when a process starts. An empty variable counts as an
unset one. A value that does not fit ends the start with a message that names the variable; a name that looks misspelt
is logged, with the name that was probably meant.

The models to serve are in a file: see [Models](#models).
"""
ADDRESSES: Final = """
## Addresses

Where a service of another process listens, `host:port`: set for what a process's services need and do not find in
their own process.

"""
MODELS: Final = """
## Models

`MODELPLANE_CONFIG` names a TOML file with a `[[models]]` table for each model, or a folder of such files; see
[Models](models.md).

"""
SCRIPT: Final = """
`script` is a table of its own, for the scripted engine, which stands in for a model in tests and load tests: it
says the same words whatever it is asked.

"""
THINKING: Final = """
`thinking` is a table of its own, for reasoning models.

"""
VISION: Final = """
`vision` is a table of its own, for models that see images; an empty one will do.

"""
LIMITS: Final = """
## Limits

A model's limits come from the organisation's usage tier (`services/ratelimit/tiers.toml`). `[[limits]]` tables in the
file of models come before them, and before the limits of [ratelimit](#ratelimit): tables for the tier before those
for all. What an administrator sets for an organisation or a project comes before everything. A limit is a number, or
`"unlimited"`; a project that has none has its organisation's.

"""
GROUPS: Final = """
Models of a `[[limit_groups]]` table share one set of limits, and what is used up of them.

"""
ERRORS: Final = """# Errors

Every failure has OpenAI's error body:

    {"error": {"message": "…", "type": "…", "param": null, "code": "…"}}

and an `x-request-id` header, which is also in the logs. Before the first byte of a stream a failure is a status;
after it, it is an event with the same body. Failures that a repetition cannot mend carry `x-should-retry: false`,
which OpenAI's SDKs obey; where a wait was computed, `retry-after` (seconds) and `retry-after-ms` say how long.

`reason` is what logs and traces call the failure.
"""
METRICS: Final = """# Metrics

`GET /metrics` gives the metrics of its process in Prometheus' text format. Replicas run in processes of their own.
Counters are exposed with the suffix `_total`, histograms with `_bucket`, `_sum` and `_count`.
"""


def one_line(text: str) -> str:
    """Documentation as the cell of a table."""
    return " ".join(cleandoc(text).split()).replace("|", "\\|")


def field_words(kind: type[Any]) -> dict[str, tuple[str, str]]:
    """Annotation and docstring of each field of a class, as they stand in its source."""
    source = Path(sys.modules[kind.__module__].__file__ or "")
    for node in ast.parse(source.read_text()).body:
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__:
            return dict(_fields(node))
    raise LookupError(kind.__name__)


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, tuple[str, str]]]:
    for field, after in zip(node.body, [*node.body[1:], ast.Pass()], strict=True):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        words = str(after.value.value) if documented else ""  # type: ignore[attr-defined]
        yield field.target.id, (ast.unparse(field.annotation), one_line(words))


def shown_default(field: Any) -> str:
    """A field's default as one would write it; empty when there is none to show."""
    if field.required:
        return "required"
    default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if default is None or default in ("", (), {}) or isinstance(default, msgspec.Struct):
        return ""
    text = str(default).lower() if isinstance(default, bool) else str(default)
    return f"`{text}`"


def fields_table(kind: type[msgspec.Struct], prefix: str = "") -> str:
    """A row for each field; `prefix` makes names of variables of them."""
    words = field_words(kind)
    rows = [f"| {'variable' if prefix else 'key'} | default | meaning |", "|---|---|---|"]
    for field in msgspec.structs.fields(kind):
        name = f"{prefix}{field.name.upper()}" if prefix else field.name
        rows.append(f"| `{name}` | {shown_default(field)} | {words[field.name][1]} |")
    return "\n".join(rows) + "\n"


def groups() -> list[type[Group]]:
    """Every group of settings: the platform's own, the services' in their table's order, then the rest."""
    found: dict[str, list[type[Group]]] = {}
    for path in sorted((ROOT / "services").rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and any(isinstance(b, ast.Name) and b.id == "Group" for b in node.bases):
                module = import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
                kind: type[Group] = getattr(module, node.name)
                found.setdefault(kind.group, []).append(kind)
    order = ["", *SERVICES]
    return [kind for name in [*order, *sorted(set(found) - set(order))] for kind in found.get(name, ())]


def configuration() -> str:
    """docs/configuration.md"""
    text = NOTE + CONFIGURATION
    for kind in groups():
        title = "The platform" if kind is PlatformSettings else kind.group
        prefix = PREFIX + (f"{kind.group.upper()}_" if kind.group else "")
        text += f"\n## {title}\n\n{cleandoc(kind.__doc__ or '')}\n\n{fields_table(kind, prefix)}"
    text += ADDRESSES + "".join(f"- `{PREFIX}{name.upper()}_ADDRESS`\n" for name in SERVICES if SERVICES[name].contract)
    text += MODELS + fields_table(ModelSpec)
    for words, table in ((THINKING, ThinkingSpec), (VISION, VisionSpec), (SCRIPT, ScriptSpec)):
        text += words + fields_table(table)
    return text + LIMITS + fields_table(LimitsTable) + GROUPS + fields_table(LimitGroup)


def errors() -> str:
    """docs/errors.md"""
    rows = ["\n| reason | status | `type` | `code` | retry |", "|---|---|---|---|---|"]
    for reason, rule in FAULTS.items():
        code = f"`{rule.code}`" if rule.code else "null"
        rows.append(f"| {reason} | {rule.status} | `{rule.type}` | {code} | {'yes' if rule.retryable else 'no'} |")
    return NOTE + ERRORS + "\n".join(rows) + "\n"


class Metric(NamedTuple):
    name: str
    kind: str
    labels: str
    words: str


def metric_calls() -> Iterator[Metric]:
    """Every metric that a module makes, as its source has it."""
    for path in sorted(path for folder in ("services", "operators") for path in (ROOT / folder).rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            call = node.value if isinstance(node, ast.Assign) else None
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
                continue
            if call.func.id in ("Counter", "Gauge", "Histogram", "Tally", "HistogramTally"):
                kind = "counter" if call.func.id == "Tally" else call.func.id.removesuffix("Tally").lower()
                name, words = (ast.literal_eval(argument) for argument in call.args[:2])
                labels = ast.literal_eval(call.args[2]) if len(call.args) > 2 else ()
                shown = ", ".join(f"`{label}`" for label in labels)
                yield Metric(name.removesuffix("_total"), kind, shown, one_line(words))


def metrics() -> str:
    """docs/metrics.md"""
    rows = ["\n| name | kind | labels | meaning |", "|---|---|---|---|"]
    rows += [f"| `{m.name}` | {m.kind} | {m.labels} | {m.words.rstrip('.')} |" for m in sorted(metric_calls())]
    return NOTE + METRICS + "\n".join(rows) + "\n"


def pages() -> dict[Path, str]:
    """The text of every generated page."""
    return {
        DOCS / "configuration.md": configuration(),
        DOCS / "errors.md": errors(),
        DOCS / "metrics.md": metrics(),
    }


if __name__ == "__main__":
    for page, made in pages().items():
        if sys.argv[1:] != ["--check"]:
            page.write_text(made)
        elif not page.exists() or page.read_text() != made:
            sys.exit(f"{page.relative_to(ROOT)} is not current: run `make docs`")

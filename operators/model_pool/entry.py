"""A pool's entry in the catalogue: the `[[models]]` table that its object stands for.

Pure. What it keeps true: the same object gives the same text; what the catalogue's own parser would not take, alone or
beside the entries of others, is not written, since one bad entry would keep every other change from being seen.
"""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from services.catalog import Catalog, ModelSpec, generation
from services.settings import SettingsError

Table = dict[str, Any]

# Fields whose value is the object's own, by the catalogue's name.
SAME: Final[Mapping[str, str]] = {
    "name": "model",
    "aliases": "aliases",
    "engine": "engine",
    "owned_by": "ownedBy",
    "context_tokens": "contextTokens",
    "slots": "slots",
    "default_output_tokens": "defaultOutputTokens",
    "default_temperature": "defaultTemperature",
    "default_top_p": "defaultTopP",
    "tool_format": "toolFormat",
    "thinking": "thinking",
    "vision": "vision",
    "free": "free",
    "price": "price",
    "revision": "revision",
    "engine_args": "engineArgs",
    "script": "script",
}
# Records of ours, whose keys are spelled in Kubernetes' way.
RECORDS: Final = frozenset(("thinking", "vision", "script"))
REPLICAS: Final[Mapping[str, str]] = {"min_replicas": "min", "max_replicas": "max", "surge": "surge"}
AUTOSCALING: Final[Mapping[str, tuple[str, int]]] = {
    "target_tokens_per_s": ("targetTokensPerSecond", 1),
    "queued_per_replica": ("queuedPerReplica", 1),
    "scale_up_after_ms": ("scaleUpAfterSeconds", 1000),
    "scale_down_after_ms": ("scaleDownAfterSeconds", 1000),
}
# What follows from where the pool runs, and how.
MADE: Final = frozenset(("checkpoint", "created_at", "cpus", "gpus", "resources"))

WEIGHTS_FOLDER: Final = "/var/lib/weights"


class EntryError(ValueError):
    """The object cannot become an entry; the message says why."""


def snake(name: str) -> str:
    return re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


def key_of(pool: str) -> str:
    """The pool's key in the ConfigMap, which is the name of a file in the catalogue's folder."""
    return f"{pool}.toml"


def table(spec: Mapping[str, Any], created: str, offers: Mapping[str, float]) -> Table:
    """The entry of a spec. `offers` is what its worker pods offer to replicas; empty where there are none."""
    found: Table = {}
    for ours, theirs in SAME.items():
        if theirs in spec:
            value = spec[theirs]
            found[ours] = {snake(key): one for key, one in value.items()} if ours in RECORDS else value
    replicas = spec.get("replicas", {})
    found |= {ours: replicas[theirs] for ours, theirs in REPLICAS.items() if theirs in replicas}
    autoscaling = spec.get("autoscaling", {})
    for ours, (theirs, factor) in AUTOSCALING.items():
        if theirs in autoscaling:
            found[ours] = autoscaling[theirs] * factor
    if checkpoint := _checkpoint(spec.get("weights", {})):
        found["checkpoint"] = checkpoint
    if created:
        found["created_at"] = int(datetime.fromisoformat(created).timestamp())
    if gpus := spec.get("resources", {}).get("gpu", 0):
        found["gpus"] = float(gpus)
        if gpus > 1:
            found["engine_args"] = {"tensor_parallel_size": gpus} | found.get("engine_args", {})
    if offers:
        found["resources"] = dict(offers)
    return found


def _checkpoint(weights: Mapping[str, Any]) -> str:
    path = str(weights.get("path", ""))
    if weights.get("source") == "claim":
        return f"{WEIGHTS_FOLDER}/{weights['claimName']}/{path}".rstrip("/")
    return path


def toml(entry: Mapping[str, Any]) -> str:
    """The file of one entry. Raises EntryError for a value that TOML has no word for."""
    lines = [f"{_quoted(key)} = {_value(value)}" for key, value in entry.items()]
    return "\n".join(("[[models]]", *lines, ""))


def _quoted(text: str) -> str:
    # A JSON string is a TOML string but for one character that JSON leaves as it is.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return _quoted(value)
        case list() | tuple():
            return f"[{', '.join(_value(one) for one in value)}]"
        case dict():
            return f"{{{', '.join(f'{_quoted(key)} = {_value(one)}' for key, one in value.items())}}}"
        case _:
            raise EntryError(f"{value!r} cannot be written")


def parsed(text: str, others: Mapping[Path, bytes]) -> ModelSpec:
    """What the catalogue's parser makes of an entry that stands beside these files. Raises EntryError."""
    own = Path("this pool")
    try:
        Catalog.parse({**others, own: text.encode()}, Path("pools"))
        return next(iter(Catalog.parse({own: text.encode()}, Path("pools"))))
    except SettingsError as error:
        raise EntryError(str(error).removeprefix("pools: ").removeprefix("this pool: ")) from error


def generation_of(text: str) -> str:
    """Of what the replicas of an entry depend on; "" for one that cannot be read."""
    try:
        return generation(parsed(text, {}))
    except EntryError:
        return ""

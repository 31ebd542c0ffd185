"""A schema as far as an answer can be held to it, for clients that did not ask for `strict`.

Any schema is accepted from them, while generation can be held to some keywords only. The others are left out, which
admits more and never less. So the answer has the right structure, as well as can be, and nobody gets a 400.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

Json = Any
Definitions = frozenset[str]
"""The references that lead somewhere."""

TYPES: Final = frozenset(("object", "array", "string", "number", "integer", "boolean", "null"))
DEFINITIONS: Final = ("$defs", "definitions")


def relaxed(schema: Mapping[str, Json]) -> dict[str, Json]:
    """A schema that admits all that `schema` does, and that only has keywords which can be held to."""
    tables = {key: table for key in DEFINITIONS if type(table := schema.get(key)) is dict}
    # A name with these characters stands otherwise in references.
    known = frozenset(
        f"#/{key}/{name}" for key, table in tables.items() for name in table if not set("~/%") & set(name)
    )
    kept = _part(schema, known)
    kept |= {key: {name: _part(part, known) for name, part in table.items()} for key, table in tables.items()}
    return kept


def _part(schema: Json, known: Definitions) -> dict[str, Json]:
    if not isinstance(schema, Mapping):
        return {}
    if "$ref" in schema:
        reference = schema["$ref"]
        return {"$ref": reference} if type(reference) is str and reference in known else {}
    if "const" in schema:
        return {"const": schema["const"]}
    if "enum" in schema:
        return {"enum": schema["enum"]} if type(schema["enum"]) is list and schema["enum"] else {}
    choices = schema.get("anyOf", schema.get("oneOf"))
    if "type" not in schema and type(choices) is list and choices:
        return {"anyOf": [_part(choice, known) for choice in choices]}
    read = {key: keep(value, known) for key, keep in KEPT.items() if (value := schema.get(key)) is not None}
    kept = {key: value for key, value in read.items() if value is not None}
    if "properties" in kept:
        required = schema.get("required")
        kept["required"] = [name for name in kept["properties"] if type(required) is list and name in required]
    return kept


def _type(value: Json, _: Definitions) -> Json:
    names = value if type(value) is list else [value]
    known = names and all(type(name) is str and name in TYPES for name in names)
    return value if known and len(set(names)) == len(names) else None


def _properties(value: Json, known: Definitions) -> Json:
    return {name: _part(part, known) for name, part in value.items()} if type(value) is dict and value else None


def _additional(value: Json, known: Definitions) -> Json:
    return value if type(value) is bool else _part(value, known)


def _items(value: Json, known: Definitions) -> Json:
    return _part(value, known) if type(value) is dict else None


KEPT: Final[Mapping[str, Callable[[Json, Definitions], Json]]] = {
    "type": _type,
    "properties": _properties,
    "additionalProperties": _additional,
    "items": _items,
}

"""Holds answers against OpenAI's own schemas, strictly: a key that the schema does not name is an error too."""

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

_DOCUMENT = json.loads(Path(__file__).with_name("openai_schemas.json").read_text())

EVENT_TYPES = frozenset(_DOCUMENT["$defs"]["AuditLogEventType"]["enum"])
"""What the events of OpenAI's audit log are called."""


def assert_matches(name: str, value: Any) -> None:
    """Raises AssertionError with what does not fit the schema."""
    schema = {"$ref": f"#/$defs/{name}", "$defs": _DOCUMENT["$defs"]}
    errors = [error.message for error in Draft202012Validator(schema).iter_errors(value)]
    assert not errors, errors
    unknown = set(value) - _properties(_DOCUMENT["$defs"][name])
    assert not unknown, f"{name} has no {unknown}"


def _properties(schema: dict[str, Any]) -> set[str]:
    """The names that an object may have, of all the schemas that it must fit."""
    if "$ref" in schema:
        return _properties(_DOCUMENT["$defs"][schema["$ref"].removeprefix("#/$defs/")])
    return set(schema.get("properties", ())).union(*map(_properties, schema.get("allOf", ())))

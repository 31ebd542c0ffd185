"""Turns what an answer is held to into the one form that the engine's grammar compiler reads: a structural tag. Pure.

Kept true: what comes out binds the answer only, and thinking, where the model thinks, comes before it and is ended
by force after its budget; runs of white space between the parts of a JSON value are excluded, because a small model
goes on with them for ever; a schema that asks for what the compiler would silently not hold to is refused, by the
keyword and the place where it stands.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

Kind = Literal["json_object", "json_schema", "structural_tag", "text"]

# Levels of nesting; the compiler's cost grows steeply with them. OpenAI admits 10 in a schema.
_MOST_LEVELS = 64

# White space characters in a row within a JSON value; the compiler has no 0.
_MOST_WHITESPACE = 1

_SCHEMA_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_SCHEMA_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SCHEMAS = ("items", "additionalProperties", "propertyNames")

# What xgrammar 0.2.8 reads over without a word.
_IGNORED = ("not", "if", "dependentRequired", "dependentSchemas", "dependencies", "unevaluatedItems")
_IGNORED_OF_TYPE: Mapping[str, tuple[str, ...]] = {
    "integer": ("multipleOf",),
    "number": ("multipleOf",),
    "array": ("uniqueItems", "contains", "minContains", "maxContains"),
}
# The values of `format` that it knows.
_FORMATS = frozenset(
    {
        *("email", "date", "time", "date-time", "duration", "ipv4", "ipv6", "hostname", "uuid"),
        *("uri", "uri-reference", "uri-template", "json-pointer", "relative-json-pointer"),
    }
)


class SchemaError(Exception):
    """The constraint cannot be held to; the message says why, for the client."""


class Thoughts(NamedTuple):
    """The thinking before the answer, as `Thinking` of the contract has it."""

    begin: str
    end: str
    open: bool
    budget_tokens: int


def structural_tag(kind: Kind, text: str, thoughts: Thoughts | None) -> str:
    """The structural tag of a constraint; of kind `text`, any answer will do. Raises SchemaError."""
    answer: Any
    if kind == "text":
        answer = {"type": "any_text"}
    elif kind == "json_object":
        answer = _json({"type": "object"})
    elif kind == "json_schema":
        schema = _parsed(text)
        _check(schema)
        answer = _json(schema)
    else:
        tag = _parsed(text)
        if not isinstance(tag, dict) or not isinstance(tag.get("format"), dict):
            raise SchemaError("A structural tag is an object with a format.")
        answer = _bounded(tag["format"])
    if thoughts:
        answer = _after(thoughts, answer)
    return json.dumps({"type": "structural_tag", "format": answer})


def _parsed(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise SchemaError(f"The schema is not valid JSON: {error}.") from error
    except RecursionError as error:
        raise _too_deep() from error
    level = [value]
    for _ in range(_MOST_LEVELS):
        level = [child for node in level for child in _children(node)]
    if level:
        raise _too_deep()
    return value


def _children(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        yield from node.values()
    elif isinstance(node, list):
        yield from node


def _too_deep() -> SchemaError:
    return SchemaError(f"The schema is nested more than {_MOST_LEVELS} levels deep.")


def _json(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": _MOST_WHITESPACE}


def _bounded(node: Any) -> Any:
    """A part of a structural tag, with its schemas checked and their white space bounded."""
    if isinstance(node, list):
        return [_bounded(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("type") == "json_schema":
        _check(node.get("json_schema"))
        return {"max_whitespace_cnt": _MOST_WHITESPACE, **node}
    return {key: _bounded(value) for key, value in node.items()}


def _after(thoughts: Thoughts, answer: Any) -> dict[str, Any]:
    thinking: dict[str, Any] = {"type": "any_text"}
    if thoughts.budget_tokens:
        thinking["max_tokens"] = thoughts.budget_tokens
    opening = [] if thoughts.open else [{"type": "const_string", "value": thoughts.begin}]
    closing = [{"type": "const_string", "value": thoughts.end}, {"type": "regex", "pattern": "\\n{0,2}"}]
    return {"type": "sequence", "elements": [*opening, thinking, *closing, answer]}


def _check(schema: Any, place: str = "#") -> None:
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise SchemaError(f"The schema at {place} is neither an object nor a boolean.")
    for keyword in _unheld(schema):
        raise SchemaError(f"This model cannot hold its answer to {keyword} at {place}.")
    for keyword in _SCHEMA_MAPS:
        if isinstance(children := schema.get(keyword), dict):
            for name, child in children.items():
                _check(child, f"{place}/{keyword}/{name}")
    for keyword in _SCHEMA_LISTS:
        if isinstance(children := schema.get(keyword), list):
            for index, child in enumerate(children):
                _check(child, f"{place}/{keyword}/{index}")
    for keyword in _SCHEMAS:
        if isinstance(child := schema.get(keyword), dict):
            _check(child, f"{place}/{keyword}")


def _unheld(schema: Mapping[str, Any]) -> Iterator[str]:
    """What of this schema, without those inside it, the compiler would not hold to."""
    types = schema.get("type", ())
    for keyword in _IGNORED:
        if keyword in schema:
            yield f"'{keyword}'"
    for name in (types,) if isinstance(types, str) else types:
        for keyword in _IGNORED_OF_TYPE.get(str(name), ()):
            if schema.get(keyword):
                yield f"'{keyword}'"
    if isinstance(several := schema.get("allOf"), list) and len(several) > 1:
        yield "'allOf' of several schemas"
    if "format" in schema and schema["format"] not in _FORMATS:
        yield f"the format {schema['format']!r}"
    if _is_pattern(schema) and _is_sized(schema):
        yield "'pattern' or 'format' together with a length"
    names = schema.get("propertyNames")
    patterns = schema.get("patternProperties")
    if names is not None and (patterns is not None or "properties" in schema or schema.get("unevaluatedProperties")):
        yield "'propertyNames' together with properties"
    if isinstance(patterns, dict) and ("properties" in schema or len(patterns) > 1):
        yield "'patternProperties' together with others"


def _is_pattern(schema: Mapping[str, Any]) -> bool:
    return "pattern" in schema or "format" in schema


def _is_sized(schema: Mapping[str, Any]) -> bool:
    return "minLength" in schema or "maxLength" in schema

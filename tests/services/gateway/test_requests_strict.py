"""What strict admits of JSON Schema, limit by limit, and how the place of a fault is named."""

from enum import Enum
from typing import Any, Literal, Optional

import pytest
from openai.lib._pydantic import to_strict_json_schema
from pydantic import BaseModel, Field

from services.gateway.requests.strict import KEYWORDS, NotStrict, check

STRING = {"type": "string"}


def closed(of: dict[str, Any], /, **more: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": of,
        "required": list(of),
        "additionalProperties": False,
        **more,
    }


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = STRING
    for _ in range(levels):
        schema = closed({"a": schema})
    return schema


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Leaf(BaseModel):
    name: str = Field(description="A name", min_length=1)
    kind: Literal["leaf"]
    number: Literal[1, 2] | None = None
    color: Color = Field(description="Its color")
    weight: float = Field(ge=0, le=1)


class Tree(BaseModel):
    leaves: list[Leaf]
    best: Leaf = Field(description="The best of them")
    branches: list["Tree"]
    parent: Optional["Tree"]


@pytest.mark.parametrize("model", [Leaf, Tree])
def test_what_the_sdk_makes_of_pydantic_models(model: type[BaseModel]) -> None:
    check(to_strict_json_schema(model))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "additionalProperties": False},
        closed({}, **{"$schema": "http://json-schema.org/draft-07/schema#"}, title="t", description="d"),
        closed({"a": {"type": ["string", "null"], "minLength": 0, "maxLength": 3}}),
        closed({"a": {"type": "string", "pattern": r"^a\(?=$"}, "b": {"type": ["null", "string"], "format": "uuid"}}),
        closed({"a": {"type": "number", "minimum": 0.5, "exclusiveMaximum": 5}}),
        closed({"a": {"type": "array", "items": STRING, "minItems": 0, "maxItems": 3}}),
        closed({"a": {"type": ["array", "object"], "items": STRING, "additionalProperties": False}}),
        closed({"a": {"enum": ["x", 1, 2.5, None, True]}, "b": {"const": None}}),
        closed({"a": {"type": "integer", "enum": [1, 2.0]}, "b": {"type": "number", "const": 3}}),
        closed({"a": {"anyOf": [STRING, {"type": "null"}, closed({})], "description": "d"}}),
        closed({"a": {"$ref": "#"}}),
        closed({"a": {"$ref": "#/$defs/x"}}, **{"$defs": {"x": closed({"again": {"$ref": "#/$defs/x"}})}}),
        closed({"a": {"$ref": "#/definitions/a~b[c]"}}, definitions={"a~b[c]": STRING, "not/used": STRING}),
        closed({"properties": STRING, "$ref": STRING, "anyOf": STRING}),
        nested(10),
        closed({str(number): STRING for number in range(5000)}),
        closed({"a": {"type": "string", "enum": [str(number) for number in range(1000)]}}),
        closed({"a": {"type": "string", "enum": ["x" * 60 + str(number) for number in range(250)]}}),
        closed({"a" * 120_000: STRING}),
    ],
)
def test_inside(schema: dict[str, Any]) -> None:
    check(schema)


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        ({}, "schema must be a JSON Schema of 'type: \"object\"', got 'type: \"None\"'."),
        ({"type": "array"}, "schema must be a JSON Schema of 'type: \"object\"', got 'type: \"array\"'."),
        ({"type": ["object"]}, "schema must be a JSON Schema of 'type: \"object\"', got 'type: \"None\"'."),
        (closed({}, anyOf=[STRING]), "In context=(), 'anyOf' is not permitted."),
        (
            {"type": "object"},
            "In context=(), 'additionalProperties' is required to be supplied and to be false.",
        ),
        (
            closed({"b": STRING}, required=[]),
            "In context=(), 'required' is required to be supplied and to be an array including every key in "
            "properties. Missing 'b'.",
        ),
        (closed({}, required=["b"]), "In context=(), Extra required key 'b' supplied."),
        (closed({}, properties=[]), "In context=(), 'properties' must be an object."),
        (closed({}, required=[[]]), "In context=(), 'required' must be an array of strings."),
        (nested(11), f"In context={('properties', 'a') * 10!r}, 11 levels of nesting exceeds limit of 10."),
        (
            closed({str(number): STRING for number in range(5001)}),
            "5001 object properties exceeds limit of 5000.",
        ),
        (
            closed({}, **{"$defs": {"x": {"anyOf": [STRING] * 20_000}}}),
            "more than 20000 schemas within the schema.",
        ),
        (
            closed({"a": {"type": "string", "enum": [str(number) for number in range(1001)]}}),
            "1001 enum values exceeds limit of 1000.",
        ),
        (
            closed({"a": {"type": "string", "enum": ["x" * 60 + str(number) for number in range(251)]}}),
            "In context=('properties', 'a'), 15703 characters in an enum of more than 250 values exceeds limit of "
            "15000.",
        ),
        (
            closed({"a" * 60_000: {"const": "c" * 30_000}}, **{"$defs": {"d" * 30_001: STRING}}),
            "120001 characters in names, enum and const exceeds limit of 120000.",
        ),
        (closed({}, **{"$defs": []}), "In context=(), '$defs' must be an object."),
    ],
)
def test_outside(schema: dict[str, Any], complaint: str) -> None:
    with pytest.raises(NotStrict) as raised:
        check(schema)
    assert str(raised.value) == complaint


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        (True, "schema must be an object."),
        ({}, "schema must have a 'type' key."),
        ({"title": "t"}, "schema must have a 'type' key."),
        ({"type": "text"}, f"'type' must be one or more of {', '.join(map(repr, KEYWORDS))}."),
        ({"type": []}, f"'type' must be one or more of {', '.join(map(repr, KEYWORDS))}."),
        ({"type": [[]]}, f"'type' must be one or more of {', '.join(map(repr, KEYWORDS))}."),
        ({"type": "array"}, "array schema missing items."),
        ({"type": "string", "items": STRING}, "'items' is not permitted."),
        ({"type": "string", "default": "x"}, "'default' is not permitted."),
        ({"type": "string", "$defs": {}}, "'$defs' is not permitted."),
        ({"enum": ["x"], "minLength": 1}, "'minLength' is not permitted."),
        *(
            ({"type": "object", "additionalProperties": False, keyword: {}}, f"'{keyword}' is not permitted.")
            for keyword in (
                "allOf",
                "oneOf",
                "not",
                "if",
                "then",
                "else",
                "dependentRequired",
                "dependentSchemas",
                "patternProperties",
                "propertyNames",
                "unevaluatedProperties",
                "minProperties",
            )
        ),
        *(
            ({"type": "array", "items": STRING, keyword: 1}, f"'{keyword}' is not permitted.")
            for keyword in ("uniqueItems", "contains", "prefixItems", "unevaluatedItems")
        ),
        ({"type": "string", "maxLength": 1.5}, "'maxLength' must be an integer of at least 0."),
        ({"type": "array", "items": STRING, "minItems": -1}, "'minItems' must be an integer of at least 0."),
        ({"type": "number", "minimum": "0"}, "'minimum' must be a number."),
        ({"type": "number", "multipleOf": 5}, "'multipleOf' is not supported yet."),
        *(
            ({"type": "string", "pattern": pattern}, "a 'pattern' that looks ahead or behind is not supported yet.")
            for pattern in ("(?=a)", "a(?!b)", "(?<=a)b", r"\\(?<!a)b")
        ),
        ({"type": "string", "pattern": "a", "minLength": 1}, "'minLength' beside 'pattern' is not supported yet."),
        ({"type": "string", "format": "date", "maxLength": 1}, "'maxLength' beside 'format' is not supported yet."),
        ({"type": "string", "pattern": 5}, "'pattern' must be a string."),
        ({"type": "string", "format": "uri"}, "'uri' is not a valid format."),
        ({"type": "string", "format": []}, "'format' must be a string."),
        ({"type": "string", "enum": []}, "'enum' must be an array of at least one value."),
        ({"enum": "x"}, "'enum' must be an array of at least one value."),
        ({"enum": [[]]}, "enum values must be strings, numbers, booleans or null."),
        ({"const": {}}, "const values must be strings, numbers, booleans or null."),
        ({"type": "string", "enum": ["a", 1]}, "enum value 1 does not validate against {'type': 'string'}."),
        (
            {"type": ["integer", "null"], "const": True},
            "const value True does not validate against {'type': ['integer', 'null']}.",
        ),
        ({"anyOf": []}, "'anyOf' must be an array of at least one schema."),
        ({"anyOf": [STRING], "type": "string"}, "'type' is not permitted beside 'anyOf'."),
        (
            {"$ref": "#/$defs/x", "title": "t", "description": "d"},
            "$ref cannot have keywords {'description', 'title'}.",
        ),
        ({"$ref": "#/$defs/y"}, "reference '#/$defs/y' does not lead to a definition."),
        (
            {"$ref": "#/properties/a"},
            "reference can only point to definitions defined at the top level of the schema.",
        ),
        (
            {"$ref": "#/$defs/x/type"},
            "reference can only point to definitions defined at the top level of the schema.",
        ),
        ({"$ref": 5}, "reference can only point to definitions defined at the top level of the schema."),
    ],
)
def test_the_place_is_named(schema: Any, complaint: str) -> None:
    definitions = {"$defs": {"x": STRING}}
    for around, context in (
        (closed({"a": schema}, **definitions), ("properties", "a")),
        (closed({"a": {"type": "array", "items": schema}}, **definitions), ("properties", "a", "items")),
        (closed({"a": {"anyOf": [STRING, schema]}}, **definitions), ("properties", "a", "anyOf", "1")),
        (closed({}, **{"$defs": {"x": STRING, "bad": schema}}), ("$defs", "bad")),
    ):
        with pytest.raises(NotStrict) as raised:
            check(around)
        assert str(raised.value) == f"In context={context!r}, {complaint}"


def test_the_first_fault_is_named() -> None:
    with pytest.raises(NotStrict, match=r"'properties', 'b', 'properties', 'x'"):
        check(closed({"a": STRING, "b": closed({"x": {}, "y": {}}), "c": {}}))


@pytest.mark.parametrize(
    "definitions",
    [
        {"x": {"$ref": "#/$defs/x"}},
        {"x": {"$ref": "#/$defs/y"}, "y": {"anyOf": [STRING, {"anyOf": [{"$ref": "#/$defs/x"}]}]}},
    ],
)
def test_a_definition_cannot_stand_for_itself(definitions: dict[str, Any]) -> None:
    with pytest.raises(NotStrict, match=r"^reference '#/\$defs/x' leads back to itself.$"):
        check(closed({}, **{"$defs": definitions}))


def test_many_choices_of_definitions_are_looked_at_once() -> None:
    definitions: dict[str, Any] = {
        f"d{number}": {"anyOf": [{"$ref": f"#/$defs/d{later}"} for later in range(number + 1, min(number + 20, 900))]}
        for number in range(899)
    }
    check(closed({}, **{"$defs": {**definitions, "d899": STRING}}))

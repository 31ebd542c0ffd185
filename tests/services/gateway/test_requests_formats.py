"""`response_format`, and the words for a schema that strict does not admit."""

from typing import Any

import pytest

from services.gateway.requests.formats import ResponseFormat
from tests.services.gateway.test_requests import parsed, refusal
from tests.services.gateway.test_requests_tools import SCHEMA, deep


def schema_format(**inner: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", **inner}}


def test_formats() -> None:
    assert parsed(response_format={"type": "text"}).response_format == ResponseFormat()
    asked = [{"role": "user", "content": "Answer in JSON"}]
    chat = parsed(messages=asked, response_format={"type": "json_object"})
    assert chat.response_format == ResponseFormat(kind="json_object")
    chat = parsed(response_format=schema_format(schema=SCHEMA, strict=True, description="d"))
    assert chat.response_format == ResponseFormat(
        kind="json_schema", name="answer", schema=SCHEMA, strict=True, description="d"
    )
    assert parsed(response_format=schema_format(strict=None)).response_format == ResponseFormat(
        kind="json_schema", name="answer", schema={"type": "object"}
    )


def test_a_loose_schema_may_say_what_it_likes() -> None:
    loose = {"type": "array", "items": {"oneOf": [{"type": "string", "default": ""}]}}
    assert parsed(response_format=schema_format(schema=loose)).response_format.schema == loose


@pytest.mark.parametrize(
    ("response_format", "reason", "param", "message"),
    [
        (
            {"type": "json_object"},
            "invalid_parameter",
            "messages",
            "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.",
        ),
        (
            schema_format(schema={**SCHEMA, "properties": {"city": {"type": "object"}}}, strict=True),
            "invalid_json_schema",
            "response_format",
            "Invalid schema for response_format 'answer': In context=('properties', 'city'), 'additionalProperties' "
            "is required to be supplied and to be false.",
        ),
        (
            {"type": "yaml"},
            "invalid_value",
            "response_format.type",
            "Invalid value: 'yaml'. Supported values are: 'text', 'json_object', and 'json_schema'.",
        ),
    ],
)
def test_words(response_format: Any, reason: str, param: str, message: str) -> None:
    assert refusal(response_format=response_format) == (reason, param, message)


@pytest.mark.parametrize(
    ("response_format", "reason", "param"),
    [
        ("json", "invalid_type", "response_format"),
        ({}, "missing_required_parameter", "response_format.type"),
        ({"type": "text", "x": 1}, "unknown_parameter", "response_format.x"),
        ({"type": "text", "json_schema": {"name": "a"}}, "invalid_parameter", "response_format"),
        ({"type": "json_schema"}, "missing_required_parameter", "response_format.json_schema"),
        ({"type": "json_schema", "json_schema": 5}, "invalid_type", "response_format.json_schema"),
        (
            {"type": "json_schema", "json_schema": {}},
            "missing_required_parameter",
            "response_format.json_schema.name",
        ),
        (schema_format(strict=True), "missing_required_parameter", "response_format.json_schema.schema"),
        (schema_format(schema=[]), "invalid_type", "response_format.json_schema.schema"),
        (schema_format(schema=deep(150)), "invalid_parameter", "response_format.json_schema.schema"),
        (schema_format(schema=deep(150), strict=True), "invalid_parameter", "response_format.json_schema.schema"),
        (schema_format(strict=1), "invalid_type", "response_format.json_schema.strict"),
        (schema_format(name="a b"), "invalid_value", "response_format.json_schema.name"),
        (schema_format(name="a" * 65), "string_above_max_length", "response_format.json_schema.name"),
        (schema_format(x=1), "unknown_parameter", "response_format.json_schema.x"),
    ],
)
def test_refusals(response_format: Any, reason: str, param: str) -> None:
    assert refusal(response_format=response_format)[:2] == (reason, param)

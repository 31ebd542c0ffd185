"""Constraints become structural tags, or are refused by the keyword that cannot be held to."""

import json
from typing import Any

import pytest

from services.chat_inference.constraints import SchemaError, Thoughts, structural_tag

THINK = Thoughts("<think>", "</think>", open=True, budget_tokens=7)


def made(kind: Any, value: object, thoughts: Thoughts | None = None) -> Any:
    text = value if isinstance(value, str) else json.dumps(value)
    tag = json.loads(structural_tag(kind, text, thoughts))
    assert tag["type"] == "structural_tag"
    return tag["format"]


def test_white_space_is_bounded_everywhere() -> None:
    schema = {"type": "object", "properties": {"not": {"type": "string", "format": "date"}}}
    held = {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": 1}
    assert made("json_schema", schema) == held
    assert made("json_object", "")["json_schema"] == {"type": "object"}
    inner = {"type": "json_schema", "json_schema": schema}
    tags = [{"type": "tag", "begin": "a", "content": content, "end": "b"} for content in (inner, {"type": "any_text"})]
    given = {"type": "structural_tag", "format": {"type": "or", "elements": tags}}
    first, second = made("structural_tag", given)["elements"]
    assert (first["content"], second["content"]) == (held, {"type": "any_text"})
    assert made("structural_tag", {"format": {**inner, "max_whitespace_cnt": 4}})["max_whitespace_cnt"] == 4


def test_thinking_comes_first() -> None:
    *thinking, answer = made("json_object", "", THINK)["elements"]
    assert answer["json_schema"] == {"type": "object"}
    assert thinking[0] == {"type": "any_text", "max_tokens": 7}
    assert thinking[1]["value"] == "</think>"
    closed = made("text", "", THINK._replace(open=False, budget_tokens=0))["elements"]
    assert closed[0]["value"] == "<think>" and closed[1] == {"type": "any_text"}
    assert closed[-1] == {"type": "any_text"}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("{", "not valid JSON"),
        ("[" * 3_000, "levels deep"),
        (json.dumps({"a": json.loads("[" * 70 + "]" * 70)}), "64 levels deep"),
        ([], "# is neither"),
        ({"properties": {"a": {"items": 3, "not": {}}}}, "'not' at #/properties/a"),
        ({"items": {"anyOf": [{}, {"type": "integer", "multipleOf": 3}]}}, "'multipleOf' at #/items/anyOf/1"),
        ({"$defs": {"x": {"type": ["array", "null"], "uniqueItems": True}}}, "'uniqueItems' at #/$defs/x"),
        ({"allOf": [{}, {}]}, "'allOf'"),
        ({"type": "string", "format": "zip"}, "the format 'zip'"),
        ({"type": "string", "pattern": "a", "minLength": 3}, "together with a length"),
        ({"patternProperties": {"a": {}, "b": {}}}, "'patternProperties'"),
        ({"propertyNames": {}, "properties": {}}, "'propertyNames'"),
        ({"additionalProperties": {"if": {}}}, "'if' at #/additionalProperties"),
        ({"anyOf": ["x"]}, "#/anyOf/0 is neither"),
    ],
)
def test_what_would_not_be_held_to_is_refused(schema: object, words: str) -> None:
    with pytest.raises(SchemaError) as raised:
        made("json_schema", schema)
    assert words in str(raised.value)
    if isinstance(schema, dict):
        with pytest.raises(SchemaError):
            made(
                "structural_tag",
                {"format": {"type": "star", "content": {"type": "json_schema", "json_schema": schema}}},
            )


@pytest.mark.parametrize("text", ["{}", "[]", '{"format": 3}', '"x"'])
def test_a_structural_tag_has_a_format(text: str) -> None:
    with pytest.raises(SchemaError, match="format"):
        made("structural_tag", text)

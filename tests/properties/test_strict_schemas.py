"""Schemas within the strict subset pass, and whatever takes one out of it is found where it is."""

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.requests.strict import ANNOTATIONS, KEYWORDS, NotStrict, check
from tests.properties.test_chat_requests import json_values

Schema = dict[str, Any]

DEFINED = ["#", "#/$defs/one", "#/$defs/two"]
scalars = st.sampled_from(
    [
        {"type": "string"},
        {"type": ["number", "null"], "minimum": 0},
        {"type": "string", "enum": ["a", "b"], "description": "d"},
        {"const": 5},
        {"type": "string", "format": "date"},
        *({"$ref": target} for target in DEFINED),
    ]
)
keys = st.sampled_from(["a", "b", "properties", "anyOf", "$ref", "type", "items", "'"])


def closed(properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


parts = st.recursive(
    scalars,
    lambda inner: st.one_of(
        inner.map(lambda items: {"type": "array", "items": items, "maxItems": 4}),
        st.lists(inner, min_size=1, max_size=3).map(lambda choices: {"anyOf": choices}),
        st.dictionaries(keys, inner, max_size=3).map(closed),
    ),
    max_leaves=8,
)
roots = st.builds(
    lambda root, one, two: {**root, "$defs": {"one": one, "two": two}},
    st.dictionaries(keys, parts, max_size=3).map(closed),
    st.dictionaries(keys, parts, max_size=2).map(closed),
    st.dictionaries(keys, parts, max_size=2).map(closed),
)


def places(schema: Schema, context: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Schema]]:
    """Every schema within a schema, with the keys that lead to it."""
    yield context, schema
    for keyword in ("properties", "$defs"):
        if keyword != "$defs" or not context:
            for name, inner in schema.get(keyword, {}).items():
                yield from places(inner, (*context, keyword, name))
    for index, inner in enumerate(schema.get("anyOf", ())):
        yield from places(inner, (*context, "anyOf", str(index)))
    if "items" in schema:
        yield from places(schema["items"], (*context, "items"))


@given(roots)
def test_schemas_of_the_subset_pass(schema: Schema) -> None:
    check(schema)


@given(roots, st.data())
def test_what_leaves_the_subset_is_found_where_it_is(schema: Schema, data: st.DataObject) -> None:
    # A copy in which no two places are one.
    broken = json.loads(json.dumps(schema))
    context, place = data.draw(st.sampled_from(list(places(broken))))
    kind = data.draw(st.sampled_from(["forbidden", "empty", "open", "optional", "lost"]))
    if kind == "forbidden":
        place[data.draw(st.sampled_from(["allOf", "oneOf", "not", "if", "default", "patternProperties"]))] = {}
    elif kind == "empty" and context:
        place.clear()
    elif kind == "lost" and "$ref" in place:
        place["$ref"] = "#/$defs/three"
    elif kind == "optional" and place.get("required"):
        del place["required"][data.draw(st.integers(0, len(place["required"]) - 1))]
    elif place.get("type") == "object":
        place["additionalProperties"] = data.draw(st.sampled_from([True, None, {}]))
    else:
        return
    with pytest.raises(NotStrict) as raised:
        check(broken)
    assert str(raised.value).startswith(f"In context={context!r}, ")


words = st.sampled_from([*ANNOTATIONS, *frozenset.union(*KEYWORDS.values()), "type", "enum", "const", "anyOf", "$ref"])
anything = st.recursive(
    json_values | st.sampled_from([*KEYWORDS, *DEFINED]),
    lambda inner: st.dictionaries(words, inner, max_size=4) | st.lists(inner, max_size=2),
    max_leaves=12,
)


@given(st.dictionaries(words, anything, max_size=5), st.booleans())
def test_any_object_is_a_schema_or_not(value: Schema, whole: bool) -> None:
    """And one that passes can be written down again."""
    schema = value if whole else closed({"a": value})
    try:
        check(schema)
    except NotStrict as complaint:
        assert str(complaint)
    else:
        msgspec.json.encode(schema)

"""What an answer is held to, tried on xgrammar itself: which answers it lets a model write."""

import json
import time
from typing import Any

import pytest
import xgrammar
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from services.gateway.outputs.constraints import constraint
from services.gateway.outputs.parsers import parser
from services.gateway.outputs.relaxed import relaxed
from tests.services.gateway.outputs.chats import (
    CITY,
    CLOCK,
    FORMATS,
    WEATHER,
    chat,
    gathered,
    numbered,
    read,
    write,
)

END = 256
ONE = [("get_weather", {"city": 'a "{b', "days": 2})]
TWO = [*ONE, ("search", {"query": "x", "more": [{"deep": 1}]}), ("clock", {})]
JSON_OBJECT = {"type": "json_object"}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": CITY}}


@pytest.fixture(scope="module")
def compiler() -> xgrammar.GrammarCompiler:
    """For a vocabulary of bytes."""
    vocabulary: list[Any] = [*(bytes([byte]) for byte in range(256)), b"<end>"]
    tokens = xgrammar.TokenizerInfo(vocabulary, stop_token_ids=[END])
    return xgrammar.GrammarCompiler(tokens, max_threads=1)


class Language:
    """The answers that a request admits."""

    def __init__(self, compiler: xgrammar.GrammarCompiler, tool_format: str = "", **fields: Any) -> None:
        held = constraint(chat(**fields), tool_format)
        assert held is not None
        kind = held.WhichOneof("kind")
        if kind == "structural_tag":
            self._grammar = compiler.compile_structural_tag(held.structural_tag)
        else:
            self._grammar = compiler.compile_json_schema(held.json_schema or '{"type": "object"}')

    def has(self, answer: str) -> bool:
        matcher = xgrammar.GrammarMatcher(self._grammar)
        return bool(matcher.accept_string(answer) and matcher.accept_token(END))

    def may_begin(self, answer: str) -> bool:
        return bool(xgrammar.GrammarMatcher(self._grammar).accept_string(answer))


def rewritten(tool_format: str, calls: Any) -> str:
    """In the very form that models are held to: values in Python's calls are JSON."""
    text = write(tool_format, calls)
    return text.replace("'a \"{b'", '"a \\"{b"').replace("'", '"') if tool_format == "pythonic" else text


def test_text_without_tools_is_free() -> None:
    assert constraint(chat(()), "") is None
    assert constraint(chat(tool_choice="none"), "hermes") is None


@pytest.mark.parametrize("tool_format", FORMATS)
class TestEveryFormat:
    def test_auto_admits_text_or_calls(self, compiler: xgrammar.GrammarCompiler, tool_format: str) -> None:
        language = Language(compiler, tool_format)
        for answer in ("", "hi", "It is 3 < 4 [1] {x}\n", rewritten(tool_format, ONE), rewritten(tool_format, TWO)):
            assert language.has(answer), answer
        # After the calls comes the end.
        assert not language.may_begin(rewritten(tool_format, TWO) + " and")

    def test_required_admits_calls_only(self, compiler: xgrammar.GrammarCompiler, tool_format: str) -> None:
        language = Language(compiler, tool_format, tool_choice="required")
        assert language.has(rewritten(tool_format, ONE)) and language.has(rewritten(tool_format, TWO))
        assert not language.has("") and not language.may_begin("hi")

    def test_a_call_is_well_formed(self, compiler: xgrammar.GrammarCompiler, tool_format: str) -> None:
        for choice in ("auto", "required"):
            language = Language(compiler, tool_format, tool_choice=choice)
            for name, arguments in (
                ("get_weather", {"city": 1, "days": 2}),
                ("get_weather", {"city": "x"}),
                ("get_weather", {"city": "x", "days": 2, "more": 1}),
                ("clock", {"a": 1}),
                ("other", {}),
            ):
                answer = rewritten(tool_format, [(name, arguments)])
                # What does not even begin as Python's calls do here is text.
                assert not language.has(answer), answer
            assert language.has(rewritten(tool_format, [("search", {"x": [1, {"y": None}]})]).replace("None", "null"))

    def test_a_function_that_is_not_strict_is_held_as_far_as_can_be(
        self, compiler: xgrammar.GrammarCompiler, tool_format: str
    ) -> None:
        loose = {"name": "book", "parameters": {**CITY, "required": ["city"]}}
        language = Language(compiler, tool_format, offers=[loose], tool_choice="required")
        assert language.has(rewritten(tool_format, [("book", {"city": "x", "days": 2})]))
        assert language.has(rewritten(tool_format, [("book", {"city": "x"})]))
        if tool_format != "pythonic":
            assert not language.has(rewritten(tool_format, [("book", {"city": "x", "days": "2"})]))
            assert not language.has(rewritten(tool_format, [("book", {"days": 2})]))
        for parameters in ({}, {"anyOf": [{"type": "object"}]}):
            vague = Language(compiler, tool_format, offers=[{"name": "book", "parameters": parameters}])
            assert vague.has(rewritten(tool_format, [("book", {"a": 1})]))

    def test_one_call_at_most(self, compiler: xgrammar.GrammarCompiler, tool_format: str) -> None:
        for choice in ("auto", "required"):
            language = Language(compiler, tool_format, tool_choice=choice, parallel_tool_calls=False)
            assert language.has(rewritten(tool_format, ONE))
            assert not language.has(rewritten(tool_format, TWO))
        functions = Language(compiler, tool_format, offers=(), functions=[CLOCK])
        assert functions.has(rewritten(tool_format, [("clock", {})]))
        assert not functions.has(rewritten(tool_format, [("clock", {})] * 2))

    def test_only_the_chosen_tools(self, compiler: xgrammar.GrammarCompiler, tool_format: str) -> None:
        named = Language(compiler, tool_format, tool_choice={"type": "function", "function": {"name": "clock"}})
        assert named.has(rewritten(tool_format, [("clock", {})])) and not named.has(rewritten(tool_format, ONE))
        allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "clock"}}]}
        some = Language(compiler, tool_format, tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
        assert some.has("hi") and some.has(rewritten(tool_format, [("clock", {})]))
        assert not some.has(rewritten(tool_format, ONE))

    @pytest.mark.parametrize("response_format", [JSON_OBJECT, JSON_SCHEMA])
    def test_calls_or_json(
        self, compiler: xgrammar.GrammarCompiler, tool_format: str, response_format: dict[str, Any]
    ) -> None:
        language = Language(compiler, tool_format, response_format=response_format)
        assert language.has('{"city": "x", "days": 1}') and language.has(rewritten(tool_format, TWO))
        assert language.has('{"a": 1}') == (response_format is JSON_OBJECT)
        assert not language.may_begin("hi")
        calls = Language(compiler, tool_format, response_format=response_format, tool_choice="required")
        assert calls.has(rewritten(tool_format, ONE)) and not calls.has('{"city": "x", "days": 1}')

    def test_what_is_admitted_is_read(self, tool_format: str) -> None:
        names = ("get_weather", "search", "clock")
        text, calls = gathered(read(parser(tool_format, names, numbered()), [rewritten(tool_format, TWO)]))
        assert text == "" and [(name, json.loads(arguments)) for name, arguments in calls] == TWO

    def test_it_is_cheap(self, tool_format: str) -> None:
        request = chat([{**WEATHER, "name": f"tool_{i}"} for i in range(128)])
        started = time.process_time()
        constraint(request, tool_format)
        assert time.process_time() - started < 0.2


def test_llama_keeps_other_json_as_text(compiler: xgrammar.GrammarCompiler) -> None:
    language = Language(compiler, "llama")
    assert language.has('{"title": "x"}') and language.has('{"n": 1}') and language.has("<b>x</b>")
    assert not language.may_begin('{"name": "other"') and not language.may_begin("<|python_tag|>")


def test_pythonic_keeps_other_brackets_as_text(compiler: xgrammar.GrammarCompiler) -> None:
    language = Language(compiler, "pythonic")
    assert language.has("[1, 2]") and language.has("[see](url)") and language.has('["a"]')
    assert not language.may_begin("[other(")


def test_pythonic_writes_what_is_no_keyword_as_an_object(compiler: xgrammar.GrammarCompiler) -> None:
    closed = {"type": "object", "additionalProperties": False}
    parts = {"a-b": {"type": "integer"}}
    odd = {"name": "odd", "strict": True, "parameters": {**closed, "properties": parts, "required": ["a-b"]}}
    again = {"tree": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}
    tree = {"name": "tree", "strict": True, "parameters": {**closed, "properties": again, "required": ["tree"]}}
    leaf = {"leaf": {"$ref": "#/$defs/leaf"}}
    defs = {"leaf": {"type": "string"}}
    uses = {
        "name": "uses",
        "strict": True,
        "parameters": {**closed, "properties": leaf, "required": ["leaf"], "$defs": defs},
    }
    language = Language(compiler, "pythonic", offers=(odd, tree, uses))
    answer = '[odd(**{"a-b": 1}), tree(**{"tree": {"tree": null}}), uses(leaf="x")]'
    assert language.has(answer) and not language.may_begin('[odd(**{"a-b": "')
    _, calls = gathered(read(parser("pythonic", ("odd", "tree", "uses"), numbered()), [answer]))
    assert calls == [("odd", '{"a-b": 1}'), ("tree", '{"tree": {"tree": null}}'), ("uses", '{"leaf": "x"}')]


def test_answers_without_tools(compiler: xgrammar.GrammarCompiler) -> None:
    held = constraint(chat((), response_format=JSON_OBJECT), "")
    assert held is not None and held.json_object
    strict = Language(compiler, offers=(), response_format=JSON_SCHEMA)
    assert strict.has('{"city": "x", "days": 1}') and not strict.has('{"city": "x"}')


LOOSE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "a": {"type": "string", "pattern": "^(?=x)", "minLength": 3},
        "b": {"anyOf": [{"type": "integer", "multipleOf": 7}, {"$ref": "#/$defs/names"}]},
        "c": {"enum": ["x", 1, None]},
        "d": {"$ref": "https://example.com/schema"},
        "e": {"type": "array", "items": {"type": "boolean"}, "uniqueItems": True},
        "f": False,
        "g": {"type": ["string", "nothing"]},
        "h": {"oneOf": [{"const": 1}, {"const": 2}]},
    },
    "required": ["c", "z"],
    "if": {"required": ["a"]},
    "propertyNames": {"maxLength": 3},
    "$defs": {"names": {"type": "object", "additionalProperties": {"type": "string"}}, "a/b": {}},
}


def test_a_loose_schema_is_held_to_as_far_as_can_be(compiler: xgrammar.GrammarCompiler) -> None:
    response_format = {"type": "json_schema", "json_schema": {"name": "x", "schema": LOOSE}}
    language = Language(compiler, offers=(), response_format=response_format)
    for answer in ('{"c": null}', '{"a": "q", "c": "x"}', '{"b": {"n": "s"}, "c": 1, "d": [1], "e": [true], "f": 0}'):
        assert language.has(answer), answer
    for answer in ("{}", '{"c": 2}', '{"a": 1, "c": 1}', '{"b": {"n": 1}, "c": 1}', '{"c": 1, "e": [1]}', "[]"):
        assert not language.has(answer), answer
    assert language.has('{"c": 1, "g": [], "h": 2}') and not language.has('{"c": 1, "h": 3}')


def test_relaxing_keeps_what_can_be_held() -> None:
    assert (
        relaxed(CITY) == CITY
        and relaxed({}) == {}
        and relaxed({"properties": {"a": CITY}}) == {"properties": {"a": CITY}, "required": []}
    )
    assert relaxed({"$ref": "#/$defs/x", "$defs": {"x": {"type": "null"}}})["$ref"] == "#/$defs/x"
    assert relaxed({"type": "object", "properties": 3, "enum": []}) == {}


keywords = st.sampled_from(
    (
        "type",
        "properties",
        "required",
        "items",
        "enum",
        "const",
        "anyOf",
        "oneOf",
        "$ref",
        "$defs",
        "additionalProperties",
    )
)
words = st.sampled_from(("object", "array", "string", "a", "#", "#/$defs/a"))
nonsense = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keywords | words, inner, max_size=4),
    max_leaves=12,
)


@given(schema=st.dictionaries(keywords, nonsense, max_size=5))
def test_relaxing_makes_a_schema_of_anything(schema: dict[str, Any]) -> None:
    once = relaxed(schema)
    Draft202012Validator.check_schema(once)
    assert relaxed(once) == once

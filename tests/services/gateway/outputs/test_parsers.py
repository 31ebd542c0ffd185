"""Calls in answers, by example: when they are given, and what becomes of what is no call."""

import json

import pytest

from services.gateway.outputs.parsers import parser
from services.gateway.outputs.reading import CallArguments, CallStart, Text, call_id
from tests.services.gateway.outputs.chats import FORMATS, gathered, numbered, read, write

NAMES = ("f", "g")


def outcome(tool_format: str, answer: str) -> tuple[str, list[tuple[str, str]]]:
    """By characters, and at once."""
    by_character = gathered(read(parser(tool_format, NAMES, numbered()), answer))
    assert gathered(read(parser(tool_format, NAMES, numbered()), [answer])) == by_character
    return by_character


def test_arguments_stream_as_they_are_written() -> None:
    reader = parser("hermes", NAMES, numbered())
    assert reader.feed("I look") == [Text("I look")]
    assert reader.feed(" it up.\n<tool") == [Text(" it up.")]
    assert reader.feed('_call>\n{"name": "f", "arg') == []
    assert reader.feed('uments": {"a') == [CallStart(0, "call_0", "f"), CallArguments(0, '{"a')]
    assert reader.feed('": "}') == [CallArguments(0, '": "}')]
    assert reader.feed('"}}\n</tool_call>\n<tool_call>{"name":') == [CallArguments(0, '"}')]
    assert reader.feed('"g","arguments":{}}</to') == [CallStart(1, "call_1", "g"), CallArguments(1, "{}")]
    assert reader.finish() == []


def test_text_is_held_back_no_longer_than_it_may_be_a_mark() -> None:
    reader = parser("hermes", NAMES, numbered())
    assert [reader.feed(part) for part in ("a <", "b", " <tool_", "calls> ", "x")] == [
        [Text("a")],
        [Text(" <b")],
        [],
        [Text(" <tool_calls>")],
        [Text(" x")],
    ]
    assert parser("llama", NAMES).feed("Hello") == [Text("Hello")]
    assert parser("pythonic", NAMES).feed("[h(a") == [Text("[h(a")]
    assert reader.feed("<too") == [] and reader.finish() == [Text("<too")]


@pytest.mark.parametrize("tool_format", FORMATS)
def test_ids(tool_format: str) -> None:
    answer = write(tool_format, [("f", {"a": 1}), ("g", {})])
    starts = [event for event in read(parser(tool_format, NAMES), [answer]) if isinstance(event, CallStart)]
    assert [start.index for start in starts] == [0, 1] and len({start.id for start in starts}) == 2
    assert all(start.id.startswith("call_") and start.id[5:].isalnum() and len(start.id) == 29 for start in starts)
    assert call_id() != call_id()


BROKEN = [
    ("hermes", "<tool_call>\nno JSON\n</tool_call>"),
    ("hermes", '<tool_call>\n{"name": "h", "arguments": {}}\n</tool_call>'),
    ("hermes", '<tool_call>{"name": "f"}</tool_call>'),
    ("hermes", '<tool_call>{"arguments": {"a": 1}}</tool_call>'),
    ("hermes", '<tool_call>{"arguments": {"a": x}, "name": "f"}</tool_call>'),
    ("hermes", '<tool_call>{"name": "f", "arguments": "{}"}</tool_call>'),
    ("hermes", '<tool_call>{"name": "f", "arguments": null}</tool_call>'),
    ("hermes", '<tool_call>{"name": f, "arguments": {}}</tool_call>'),
    ("hermes", '<tool_call>{"name": "f", "x": y, "arguments": {}}</tool_call>'),
    ("hermes", "<tool_call>"),
    ("hermes", ' \n {"name": "f", "arguments": {}}\n'),
    ("llama", 'See {"name": "f", "parameters": {}}'),
    ("llama", ' {"name": "Alice", "parameters": {}}'),
    ("llama", "<|python_tag|>print(1)"),
    ("mistral", '[TOOL_CALLS]{"name": "f", "arguments": {}}'),
    ("mistral", "[TOOL_CALLS] []"),
    ("pythonic", "[1, 2, 3]"),
    ("pythonic", "[f]"),
    ("pythonic", "[f(1)]"),
    ("pythonic", "[f(a=b)]"),
    ("pythonic", "[f(a=1, a=2)]"),
    ("pythonic", "[f(a=g())]"),
    ("pythonic", "[f(a=__import__('os'))]"),
    ("pythonic", "[f(a={1: 2})]"),
    ("pythonic", "[f(a=1_000)]"),
    ("pythonic", "[f(a='x)]"),
    ("pythonic", f"[f(a={'[' * 100_000})]"),
    ("pythonic", "text [f()]"),
]


@pytest.mark.parametrize(("tool_format", "answer"), BROKEN)
def test_what_is_no_call_is_text(tool_format: str, answer: str) -> None:
    assert outcome(tool_format, answer) == (answer, [])


ENDINGS = [
    # Cut short, the arguments are what there is of them.
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": [1', "", '{"a": [1'),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": "\\', "", '{"a": "\\'),
    ("hermes", '<tool_call>{"name": "f", "arguments": {}\n', "", "{}"),
    ("hermes", '<tool_call>{"name": "f", "arguments": {}}\n</tool_', "", "{}"),
    # What breaks off behind the arguments is text, once more.
    ("hermes", '<tool_call>{"name": "f", "arguments": {}} oops</tool_call>', "oops</tool_call>", "{}"),
    ("hermes", '<tool_call>{"name": "f", "arguments": {} oops}</tool_call>', "oops}</tool_call>", "{}"),
    ("hermes", 'Hi\n\n<tool_call>{"name": "f", "arguments": {}}</tool_call>\n\nBye\n', "Hi\n\nBye\n", "{}"),
    ("hermes", '<tool_call>{"name": "f", "arguments": {}}</tool_call>\n\nBye', "Bye", "{}"),
    ("hermes", 'a <tool_call>x <tool_call>{"name": "f", "arguments": {}}</tool_call>', "a <tool_call>x", "{}"),
    ("hermes", '<<tool_call>{"name": "f", "arguments": {}}</tool_call>', "<", "{}"),
    ("llama", '{"name": "f", "parameters": {}} Done. ', "Done. ", "{}"),
    ("llama", '{"name": "f", "parameters": {}}; {"name": "h"}', '; {"name": "h"}', "{}"),
    ("mistral", 'x [TOOL_CALLS] [{"name": "f", "arguments": {}} y', "x y", "{}"),
    ("pythonic", "[f(), h()]", ", h()]", "{}"),
    ("pythonic", "[f()] ok", "ok", "{}"),
    ("pythonic", "[f(", "[f(", None),
]


@pytest.mark.parametrize(("tool_format", "answer", "text", "arguments"), ENDINGS)
def test_what_is_around_a_call(tool_format: str, answer: str, text: str, arguments: str | None) -> None:
    assert outcome(tool_format, answer) == (text, [("f", arguments)] if arguments else [])


PYTHON = [
    ("a=True, b=false, c=None, d=null", {"a": True, "b": False, "c": None, "d": None}),
    ("a=-1, b=+.5, c=2., d=1e3, e=007", {"a": -1, "b": 0.5, "c": 2.0, "d": 1000.0, "e": 7}),
    (r"""a="it's", b='say "x"', c='\x41\u00e9\n\''""", {"a": "it's", "b": 'say "x"', "c": "Aé\n'"}),
    (r'a="\d\/", b="\ud83d\ude00", c="\ud83d"', {"a": "\\d/", "b": "😀", "c": "\ufffd"}),
    (r'a="\U0001f600", b="\Uffffffff"', {"a": "😀", "b": "\ufffd"}),
    ("a=[1, ['x',],], b={'k': {'l': []},},", {"a": [1, ["x"]], "b": {"k": {"l": []}}}),
    ("**{'a-b': 1}, c = 2 ", {"a-b": 1, "c": 2}),
    ("", {}),
]


@pytest.mark.parametrize(("keywords", "arguments"), PYTHON)
def test_python_becomes_json(keywords: str, arguments: dict[str, object]) -> None:
    text, [(name, written)] = outcome("pythonic", f"[f({keywords})]")
    assert (text, name, json.loads(written)) == ("", "f", arguments)


def test_a_long_answer_takes_time_in_proportion() -> None:
    arguments = json.dumps({"text": 'a "b" {c} ' * 20_000})
    answer = f'<tool_call>{{"arguments": {arguments}, "name": "f"}}</tool_call>' + " \n" * 50_000 + "x"
    reader = parser("hermes", NAMES, numbered())
    fragments = [answer[at : at + 4] for at in range(0, len(answer), 4)]
    assert gathered(read(reader, fragments)) == ("x", [("f", arguments)])

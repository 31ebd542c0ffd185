"""However an answer is cut into fragments, its calls and its text are read from it, and nothing is lost."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.outputs.parsers import parser
from tests.services.gateway.outputs.chats import FORMATS, gathered, numbered, read

NAMES = ("f", "get_weather", "a-b", "naïve")
SPACE = " \t\r\n"

characters = st.characters(exclude_categories=["Cs"])
strings = st.text(characters | st.sampled_from("\"'\\{}[]()<>,;:/\n"), max_size=10)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | strings,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(strings, inner, max_size=3),
    max_leaves=8,
)
json_writers = st.builds(
    lambda ascii_only, indent, tight: (
        lambda value: json.dumps(
            value, ensure_ascii=ascii_only, indent=indent, separators=(",", ":") if tight else None
        )
    ),
    st.booleans(),
    st.none() | st.integers(0, 2),
    st.booleans(),
)
spaces = st.text(SPACE, max_size=3)
# Text around calls, which neither is nor makes a mark.
texts = st.text(characters | st.sampled_from("<[ \n"), max_size=12).map(lambda text: text.strip(SPACE))

Call = tuple[str, dict[str, Any]]
calls_of_objects = st.lists(st.tuples(st.sampled_from(NAMES), st.dictionaries(strings, values, max_size=3)), max_size=4)
keywords = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,6}", fullmatch=True)
calls_of_keywords = st.lists(
    st.tuples(st.sampled_from(NAMES), st.dictionaries(keywords, values, max_size=3)), min_size=1, max_size=4
)


@st.composite
def fragments(draw: st.DrawFn, text: str) -> list[str]:
    if draw(st.booleans()):
        return list(text)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def check(data: st.DataObject, tool_format: str, answer: str) -> tuple[str, list[tuple[str, str]]]:
    """What is read in fragments, which is also what is read at once."""
    whole = gathered(read(parser(tool_format, NAMES, numbered()), [answer]))
    cut = gathered(read(parser(tool_format, NAMES, numbered()), data.draw(fragments(answer), label="fragments")))
    assert cut == whole
    return whole


def call_object(data: st.DataObject, call: Call, write: Callable[[Any], str]) -> tuple[str, str]:
    """A call as JSON, with its members in any order and perhaps more of them; and its arguments as they stand there."""
    name, arguments = call
    written = write(arguments)
    key = data.draw(st.sampled_from(("arguments", "parameters")))
    members = [f'"name":{write(name)}', f'"{key}": {written}']
    if data.draw(st.booleans()):
        members.append(f'"id" : {write(data.draw(values))}')
    return "{" + ", ".join(data.draw(st.permutations(members))) + "}", written


@given(data=st.data(), calls=calls_of_objects, write=json_writers, before=texts, after=texts)
def test_hermes_among_text(
    data: st.DataObject, calls: list[Call], write: Callable[[Any], str], before: str, after: str
) -> None:
    answer = before
    expected = []
    for call in calls:
        written, arguments = call_object(data, call, write)
        first, second, third = data.draw(st.tuples(spaces, spaces, spaces))
        answer += f"{first}<tool_call>{second}{written}{third}</tool_call>"
        expected.append((call[0], arguments))
    answer += "\n" + after
    between = "\n" if (before and after) or not calls else ""
    text = before + between + after
    assert check(data, "hermes", answer) == (text, expected)


@given(data=st.data(), calls=calls_of_objects.filter(bool), write=json_writers, before=texts, space=spaces)
def test_mistral_after_text(
    data: st.DataObject, calls: list[Call], write: Callable[[Any], str], before: str, space: str
) -> None:
    written = [call_object(data, call, write) for call in calls]
    answer = f"{before}{space}[TOOL_CALLS]{space}[{f',{space}'.join(text for text, _ in written)}{space}]{space}"
    expected = [(name, arguments) for (name, _), (_, arguments) in zip(calls, written, strict=True)]
    assert check(data, "mistral", answer) == (before, expected)


@given(data=st.data(), calls=calls_of_objects.filter(bool), write=json_writers, space=spaces, tag=st.booleans())
def test_llama(data: st.DataObject, calls: list[Call], write: Callable[[Any], str], space: str, tag: bool) -> None:
    written = [call_object(data, call, write) for call in calls]
    answer = space + "<|python_tag|>" * tag + f"{space};{space}".join(text for text, _ in written) + space
    expected = [(name, arguments) for (name, _), (_, arguments) in zip(calls, written, strict=True)]
    assert check(data, "llama", answer) == ("", expected)


@given(data=st.data(), calls=calls_of_keywords, write=json_writers | st.just(repr), space=spaces)
def test_pythonic(data: st.DataObject, calls: list[Call], write: Callable[[Any], str], space: str) -> None:
    written = [
        f"{name}({space}{f',{space}'.join(f'{key}={write(value)}' for key, value in arguments.items())})"
        for name, arguments in calls
    ]
    answer = f"{space}[{space}{f',{space}'.join(written)}{space}]{space}"
    text, read_calls = check(data, "pythonic", answer)
    assert text == "" and [(name, json.loads(arguments)) for name, arguments in read_calls] == calls


# What answers are made of, in any order.
soup = st.lists(
    st.sampled_from(
        (
            *("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<|python_tag|>", '{"name": "f", "arguments": ', "[f("),
            *('{"name": "f"', '"arguments": {', '"parameters": {}', "{}", "}", "]", ")", "[", "(", ",", ";", ":", "="),
            *('"', "'", "\\", "\\u12", "\\ud800", "a=1", "**{", '"x": 1', "f(a='b')", "True", "-1e9", " ", "\n", "<"),
        )
    )
    | strings,
    max_size=20,
).map("".join)


@pytest.mark.parametrize("tool_format", FORMATS)
@given(data=st.data(), answer=soup)
def test_any_text_is_read(tool_format: str, data: st.DataObject, answer: str) -> None:
    text, calls = check(data, tool_format, answer)
    rest = iter(answer)
    assert all(character in rest for character in text)
    if not calls:
        assert text == answer


@pytest.mark.parametrize("tool_format", FORMATS)
@given(data=st.data(), answer=soup)
def test_without_known_names_all_is_text(tool_format: str, data: st.DataObject, answer: str) -> None:
    events = read(parser(tool_format, (), numbered()), data.draw(fragments(answer)))
    assert gathered(events) == (answer, [])

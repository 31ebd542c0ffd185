"""What calls are to OpenAI's clients: fields of messages and deltas, and the reason why the choice ended."""

from typing import Any

import pytest

from services.gateway.outputs.answers import Answers, answers
from tests.services.gateway.outputs.chats import CITY, CLOCK, FORMATS, WEATHER, chat, numbered, write
from tests.services.gateway.schemas import assert_matches

CALLS = [("get_weather", {"city": "Paris", "days": 2}), ("clock", {})]
ONE = write("hermes", CALLS[:1])
TWO = write("hermes", CALLS)
ARGUMENTS = '{"city": "Paris", "days": 2}'
NAMED = {"type": "function", "function": {"name": "get_weather"}}
FUNCTIONS = [{"name": "get_weather", "parameters": CITY}, CLOCK]


def answers_to(tool_format: str = "hermes", **fields: Any) -> Answers:
    made = answers(chat(**fields), tool_format, numbered())
    assert made is not None
    return made


def test_plain_text_needs_none_of_it() -> None:
    assert answers(chat(()), "") is None
    assert answers(chat(tool_choice="none"), "") is None


@pytest.mark.parametrize("tool_format", FORMATS)
def test_a_message(tool_format: str) -> None:
    fields, reason = answers_to(tool_format).message(write(tool_format, CALLS), "stop")
    assert reason == "tool_calls"
    assert fields == {
        "content": None,
        "tool_calls": [
            {"id": "call_0", "type": "function", "function": {"name": "get_weather", "arguments": ARGUMENTS}},
            {"id": "call_1", "type": "function", "function": {"name": "clock", "arguments": "{}"}},
        ],
    }
    assert_matches("ChatCompletionResponseMessage", {"role": "assistant", "refusal": None, **fields})


def test_content_stays_beside_calls() -> None:
    fields, reason = answers_to().message("Let me see.\n" + ONE, "stop")
    assert (fields["content"], reason) == ("Let me see.", "tool_calls")


def test_no_calls() -> None:
    assert answers_to().message("Hi.\n", "stop") == ({"content": "Hi.\n"}, "stop")
    assert answers_to().message("", "length") == ({"content": ""}, "length")


def test_a_named_function_stops() -> None:
    fields, reason = answers_to(tool_choice=NAMED).message(ONE, "stop")
    assert reason == "stop" and len(fields["tool_calls"]) == 1
    assert answers_to(tool_choice="required").message(ONE, "stop")[1] == "tool_calls"
    legacy = answers_to(offers=(), functions=FUNCTIONS, function_call={"name": "get_weather"})
    assert legacy.message(ONE, "stop")[1] == "stop"


def test_a_call_that_is_cut_is_cut_by_length() -> None:
    fields, reason = answers_to().message(ONE[:60], "length")
    assert reason == "length"
    assert ARGUMENTS.startswith(fields["tool_calls"][0]["function"]["arguments"])


def test_tools_that_are_not_allowed_are_not_called() -> None:
    allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "clock"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    assert answers_to(tool_choice=choice).message(ONE, "stop") == ({"content": ONE}, "stop")


def test_the_old_field_has_room_for_one_call() -> None:
    fields, reason = answers_to(offers=(), functions=FUNCTIONS).message(TWO, "stop")
    assert reason == "function_call"
    assert fields == {"content": None, "function_call": {"name": "get_weather", "arguments": ARGUMENTS}}
    assert_matches("ChatCompletionResponseMessage", {"role": "assistant", "refusal": None, **fields})


def streamed(owner: Answers, answer: str, reason: str = "stop") -> tuple[list[dict[str, Any]], str]:
    stream = owner.stream()
    deltas = [delta for at in range(0, len(answer), 5) for delta in stream.feed(answer[at : at + 5])]
    last, finish_reason = stream.finish(reason)
    for delta in deltas + last:
        chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        assert_matches("CreateChatCompletionStreamResponse", {**chunk, "choices": [choice]})
    return deltas + last, finish_reason


def test_a_stream_has_the_name_first_and_then_the_arguments() -> None:
    deltas, reason = streamed(answers_to(), "Let me see.\n" + TWO)
    assert reason == "tool_calls"
    assert "".join(delta.get("content", "") for delta in deltas) == "Let me see."
    calls = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    starts = [call for call in calls if "id" in call]
    assert starts == [
        {"index": 0, "id": "call_0", "type": "function", "function": {"name": "get_weather", "arguments": ""}},
        {"index": 1, "id": "call_1", "type": "function", "function": {"name": "clock", "arguments": ""}},
    ]
    rest = [call for call in calls if "id" not in call]
    assert all(call.keys() == {"index", "function"} and call["function"].keys() == {"arguments"} for call in rest)
    assert [call["index"] for call in calls] == sorted(call["index"] for call in calls)
    assert "".join(call["function"]["arguments"] for call in rest if call["index"] == 0) == ARGUMENTS
    assert len(rest) > 5


def test_a_stream_of_the_old_field() -> None:
    deltas, reason = streamed(answers_to(offers=(), functions=FUNCTIONS), TWO)
    assert reason == "function_call"
    first, *rest = [delta["function_call"] for delta in deltas]
    assert first == {"name": "get_weather", "arguments": ""}
    assert "".join(call["arguments"] for call in rest) == ARGUMENTS


def test_a_stream_without_calls() -> None:
    assert streamed(answers_to(offers=(WEATHER,)), "Hi <b", "length") == (
        [{"content": "Hi <b"}],
        "length",
    )


def test_choices_of_one_request_know_nothing_of_each_other() -> None:
    owner = answers_to()
    first, second = owner.stream(), owner.stream()
    first.feed(ONE)
    assert second.feed("Hi") == [{"content": "Hi"}]
    assert (first.finish("stop")[1], second.finish("stop")[1]) == ("tool_calls", "stop")

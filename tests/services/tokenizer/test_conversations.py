"""Requests in the terms of a template: tools as transformers passes them on, or in words."""

import json
from typing import Any

import pytest

from modelplane.tokenizer.v1.tokenizer_pb2 import Message, RenderRequest, Tool, ToolCall, ToolChoice
from services.faults import InvalidRequest
from services.tokenizer.conversations import Manners, conversation

NATIVE = Manners(tool_format="hermes", system=True, developer=False)
TOLD = Manners(tool_format="", system=True, developer=False)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = Tool(name="weather", description="Tells the weather “now”", parameters=json.dumps(SCHEMA))
CLOCK = Tool(name="clock")
WEATHER_TOLD = (
    '{"type": "function", "function": {"name": "weather", "description": "Tells the weather “now”", '
    '"parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}'
)
CLOCK_TOLD = '{"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}'
HISTORY = [
    Message(role="user", content="Weather in Oslo and Rome?"),
    Message(
        role="assistant",
        tool_calls=[
            ToolCall(id="call_1", name="weather", arguments='{"city": "Oslo", "days": 1}'),
            ToolCall(id="call_2", name="weather", arguments="Rome"),
        ],
    ),
    Message(role="tool", content="rain", name="weather", tool_call_id="call_1"),
    Message(role="tool", content="sun", name="weather", tool_call_id="call_2"),
]


def told(manners: Manners = TOLD, messages: list[Message] = HISTORY[:1], **fields: Any) -> list[dict[str, Any]]:
    found = conversation(RenderRequest(messages=messages, **fields), manners)
    assert found.tools is None
    return found.messages


def test_plain_messages_stay_as_they_are() -> None:
    messages = [Message(role="system", content="Be kind."), Message(role="user", content="Hi", name="Ada")]
    assert told(messages=messages) == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi", "name": "Ada"},
    ]


def test_a_template_that_does_not_know_developers_gets_a_system_message() -> None:
    messages = [Message(role="developer", content="Be kind.")]
    assert told(messages=messages) == [{"role": "system", "content": "Be kind."}]
    assert told(TOLD._replace(developer=True), messages) == [{"role": "developer", "content": "Be kind."}]


def test_a_trained_model_gets_tools_as_transformers_passes_them() -> None:
    messages, tools = conversation(RenderRequest(messages=HISTORY, tools=[WEATHER, CLOCK]), NATIVE)
    assert tools == [json.loads(WEATHER_TOLD), json.loads(CLOCK_TOLD)]
    assert messages[1] == {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "weather", "arguments": {"city": "Oslo", "days": 1}},
            },
            {"id": "call_2", "type": "function", "function": {"name": "weather", "arguments": "Rome"}},
        ],
    }
    assert messages[2] == {"role": "tool", "content": "rain", "name": "weather", "tool_call_id": "call_1"}


@pytest.mark.parametrize("arguments", ["", "[1]", "{", "[" * 100_000, "1" * 5000, "null"])
def test_arguments_that_are_no_object_stay_text(arguments: str) -> None:
    call = ToolCall(id="1", name="f", arguments=arguments)
    (message,) = conversation(RenderRequest(messages=[Message(role="assistant", tool_calls=[call])]), NATIVE).messages
    assert message["tool_calls"][0]["function"]["arguments"] == arguments


def test_mistral_gets_ids_that_its_templates_take() -> None:
    messages, _ = conversation(RenderRequest(messages=HISTORY), NATIVE._replace(tool_format="mistral"))
    ids = [call["id"] for call in messages[1]["tool_calls"]]
    assert ids == [message["tool_call_id"] for message in messages[2:]]
    assert len(set(ids)) == 2 and all(len(i) == 9 and i.isalnum() for i in ids)
    message = Message(role="tool", tool_call_id="abc123XYZ")
    kept, _ = conversation(RenderRequest(messages=[message]), NATIVE._replace(tool_format="mistral"))
    assert kept[0]["tool_call_id"] == "abc123XYZ"


def test_another_model_is_told_of_its_tools() -> None:
    system, user = told(tools=[WEATHER, CLOCK])
    assert system["role"] == "system"
    assert f"<tools>\n{WEATHER_TOLD}\n{CLOCK_TOLD}\n</tools>" in system["content"]
    assert system["content"].endswith(
        '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
    )
    assert user == {"role": "user", "content": "Weather in Oslo and Rome?"}


def test_what_the_client_says_to_the_system_follows() -> None:
    messages = [Message(role="developer", content="Be kind."), *HISTORY[:1]]
    system, _ = told(messages=messages, tools=[CLOCK])
    assert system["role"] == "system"
    assert system["content"].startswith("# Tools") and system["content"].endswith("</tool_call>\n\nBe kind.")


def test_a_template_without_system_messages_is_told_in_the_first_one() -> None:
    (user,) = told(TOLD._replace(system=False), response_schema="{}")
    assert user == {"role": "user", "content": "Answer with a JSON object.\n\nWeather in Oslo and Rome?"}


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (ToolChoice(required=True), "Now you must call at least one function."),
        (ToolChoice(required=True, names=["clock"]), "Now you must call the function clock."),
        (ToolChoice(required=True, names=["a", "b"]), "Now you must call only functions of these: a, b."),
        (ToolChoice(names=["a", "b"]), "Now you may call only functions of these: a, b."),
        (ToolChoice(), "</tool_call>"),
    ],
)
def test_the_choice_of_tools_is_said(choice: ToolChoice, words: str) -> None:
    system, _ = told(tools=[CLOCK], tool_choice=choice)
    assert system["content"].endswith(f"\n{words}")


def test_earlier_calls_and_results_stand_in_messages() -> None:
    _, assistant, results = told(messages=HISTORY)
    assert assistant == {
        "role": "assistant",
        "content": '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo", "days": 1}}\n</tool_call>\n'
        '<tool_call>\n{"name": "weather", "arguments": "Rome"}\n</tool_call>',
    }
    assert results == {
        "role": "user",
        "content": "<tool_response>\nrain\n</tool_response>\n<tool_response>\nsun\n</tool_response>",
    }


def test_what_the_assistant_said_before_its_call_stays() -> None:
    message = Message(role="assistant", content="Let me see.", tool_calls=[ToolCall(id="1", name="f", arguments="{}")])
    (told_message,) = told(messages=[message])
    assert told_message["content"] == 'Let me see.\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'


def test_a_schema_for_the_answer_is_told_to_every_model() -> None:
    words = 'Answer with a JSON object that follows this JSON schema:\n{"type":"object"}'
    for manners in (TOLD, NATIVE):
        system, _ = told(manners, response_schema='{"type":"object"}')
        assert system == {"role": "system", "content": words}
    system, _ = told(tools=[CLOCK], response_schema='{"type":"object"}')
    assert system["content"].startswith("# Tools") and system["content"].endswith(f"</tool_call>\n\n{words}")


@pytest.mark.parametrize("parameters", ["{", "[" * 100_000])
def test_parameters_that_are_no_json_are_refused(parameters: str) -> None:
    with pytest.raises(InvalidRequest, match="function 'f'") as refused:
        told(tools=[Tool(name="f", parameters=parameters)])
    assert (refused.value.reason, refused.value.param) == ("invalid_value", "tools")

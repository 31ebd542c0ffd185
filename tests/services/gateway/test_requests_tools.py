"""What the model may call, what it must, and how the deprecated fields say the same."""

from typing import Any

import pytest

from services.gateway.requests.tools import FunctionTool, ToolChoice
from tests.services.gateway.test_requests import parsed, refusal

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


def tool(name: str = "f", **function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **function}}


def choice(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [choice(name) for name in names]}}


def test_tools() -> None:
    chat = parsed(tools=[tool("f", description="does", parameters=SCHEMA, strict=True), tool("g", strict=None)])
    assert chat.tools == (
        FunctionTool(name="f", description="does", parameters=SCHEMA, strict=True),
        FunctionTool(name="g"),
    )
    assert (chat.tool_choice, chat.parallel_tool_calls, chat.legacy_functions) == (ToolChoice(), True, False)
    assert not parsed(tools=[tool()], parallel_tool_calls=False).parallel_tool_calls


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("none", ToolChoice(mode="none")),
        ("auto", ToolChoice(mode="auto")),
        ("required", ToolChoice(mode="required")),
        (choice("f"), ToolChoice(mode="required", names=("f",), named=True)),
        (allowed("auto", "g", "f", "g"), ToolChoice(mode="auto", names=("g", "f"))),
        (allowed("required", "f"), ToolChoice(mode="required", names=("f",))),
    ],
)
def test_tool_choice(said: Any, meant: ToolChoice) -> None:
    assert parsed(tools=[tool("f"), tool("g")], tool_choice=said).tool_choice == meant


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (None, ToolChoice()),
        ("none", ToolChoice(mode="none")),
        ("auto", ToolChoice(mode="auto")),
        ({"name": "f"}, ToolChoice(mode="required", names=("f",), named=True)),
    ],
)
def test_deprecated_functions(said: Any, meant: ToolChoice) -> None:
    chat = parsed(functions=[{"name": "f", "description": "does", "parameters": SCHEMA}], function_call=said)
    assert chat.tools == (FunctionTool(name="f", description="does", parameters=SCHEMA),)
    assert (chat.tool_choice, chat.parallel_tool_calls, chat.legacy_functions) == (meant, False, True)


@pytest.mark.parametrize(
    ("fields", "reason", "param", "message"),
    [
        (
            {"tool_choice": "none"},
            "invalid_parameter",
            "tool_choice",
            "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified.",
        ),
        (
            {"parallel_tool_calls": True},
            "invalid_parameter",
            "parallel_tool_calls",
            "Invalid value for 'parallel_tool_calls': 'parallel_tool_calls' is only allowed when 'tools' are "
            "specified.",
        ),
        (
            {"function_call": "auto", "tools": [tool()]},
            "invalid_parameter",
            "function_call",
            "Invalid value for 'function_call': 'function_call' is only allowed when 'functions' are specified.",
        ),
        (
            {"tools": [tool()], "functions": [{"name": "f"}]},
            "invalid_parameter",
            "functions",
            "Invalid value for 'functions': it is not allowed together with 'tools'.",
        ),
        (
            {"tools": [tool()], "tool_choice": choice("g")},
            "invalid_parameter",
            "tool_choice",
            "Invalid value for 'tool_choice': no function named 'g' was specified in the 'tools' parameter.",
        ),
        (
            {"functions": [{"name": "f"}], "function_call": {"name": "g"}},
            "invalid_parameter",
            "function_call",
            "Invalid value for 'function_call': no function named 'g' was specified in the 'functions' parameter.",
        ),
        (
            {"tools": [tool(parameters={**SCHEMA, "additionalProperties": True}, strict=True)]},
            "invalid_function_parameters",
            "tools[0].function.parameters",
            "Invalid schema for function 'f': In context=(), 'additionalProperties' is required to be supplied and to "
            "be false.",
        ),
        (
            {"tools": [tool(parameters={"type": "array"})]},
            "invalid_function_parameters",
            "tools[0].function.parameters",
            "Invalid schema for function 'f': schema must be a JSON Schema of 'type: \"object\"', "
            "got 'type: \"array\"'.",
        ),
        (
            {"tools": [tool("a b")]},
            "invalid_value",
            "tools[0].function.name",
            "Invalid 'tools[0].function.name': string does not match pattern. Expected a string that matches the "
            "pattern '^[a-zA-Z0-9_-]+$'.",
        ),
        (
            {"tools": [tool("")]},
            "empty_string",
            "tools[0].function.name",
            "Invalid 'tools[0].function.name': empty string. Expected a string with minimum length 1, "
            "but got an empty string instead.",
        ),
    ],
)
def test_words(fields: dict[str, Any], reason: str, param: str, message: str) -> None:
    assert refusal(**fields) == (reason, param, message)


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(levels):
        schema = {"items": schema}
    return {"properties": schema}


@pytest.mark.parametrize(
    ("fields", "reason", "param"),
    [
        ({"tools": {}}, "invalid_type", "tools"),
        ({"tools": []}, "empty_array", "tools"),
        ({"tools": [tool()] * 129}, "array_above_max_length", "tools"),
        ({"tools": [5]}, "invalid_type", "tools[0]"),
        ({"tools": [{"function": {"name": "f"}}]}, "missing_required_parameter", "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "missing_required_parameter", "tools[0].function"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "unsupported_value", "tools[0].type"),
        ({"tools": [{"type": "web_search"}]}, "invalid_value", "tools[0].type"),
        ({"tools": [{**tool(), "x": 1}]}, "unknown_parameter", "tools[0].x"),
        ({"tools": [tool(x=1)]}, "unknown_parameter", "tools[0].function.x"),
        ({"tools": [tool("n" * 65)]}, "string_above_max_length", "tools[0].function.name"),
        ({"tools": [tool("name\n")]}, "invalid_value", "tools[0].function.name"),
        ({"tools": [tool(description=5)]}, "invalid_type", "tools[0].function.description"),
        ({"tools": [tool(parameters=[])]}, "invalid_type", "tools[0].function.parameters"),
        ({"tools": [tool(parameters=deep(150))]}, "invalid_parameter", "tools[0].function.parameters"),
        ({"tools": [tool(strict="yes")]}, "invalid_type", "tools[0].function.strict"),
        ({"functions": []}, "empty_array", "functions"),
        ({"functions": [{"name": "f"}] * 129}, "array_above_max_length", "functions"),
        ({"functions": [{}]}, "missing_required_parameter", "functions[0].name"),
        ({"functions": [{"name": "f", "strict": True}]}, "unknown_parameter", "functions[0].strict"),
        ({"tool_choice": "any"}, "invalid_value", "tool_choice"),
        ({"tool_choice": 5}, "invalid_type", "tool_choice"),
        ({"tool_choice": {}}, "missing_required_parameter", "tool_choice.type"),
        ({"tool_choice": {"type": "function"}}, "missing_required_parameter", "tool_choice.function"),
        (
            {"tool_choice": {"type": "function", "function": {}}},
            "missing_required_parameter",
            "tool_choice.function.name",
        ),
        ({"tool_choice": {"type": "custom", "custom": {"name": "f"}}}, "unsupported_value", "tool_choice.type"),
        ({"tool_choice": {"type": "allowed_tools"}}, "missing_required_parameter", "tool_choice.allowed_tools"),
        ({"tool_choice": allowed("none", "f")}, "invalid_value", "tool_choice.allowed_tools.mode"),
        ({"tool_choice": allowed("auto")}, "empty_array", "tool_choice.allowed_tools.tools"),
        ({"tools": [tool()], "tool_choice": allowed("auto", "f", "g")}, "invalid_parameter", "tool_choice"),
        ({"functions": [{"name": "f"}], "tool_choice": "auto"}, "invalid_parameter", "tool_choice"),
        ({"functions": [{"name": "f"}], "parallel_tool_calls": True}, "invalid_parameter", "parallel_tool_calls"),
        ({"function_call": "required"}, "invalid_value", "function_call"),
        ({"function_call": 5}, "invalid_type", "function_call"),
        ({"function_call": {}}, "missing_required_parameter", "function_call.name"),
    ],
)
def test_refusals(fields: dict[str, Any], reason: str, param: str) -> None:
    assert refusal(**fields)[:2] == (reason, param)


def test_a_loose_schema_may_say_what_it_likes() -> None:
    loose = {"properties": {"a": {"oneOf": [{"default": 5}, True]}}, "x-mine": None}
    assert parsed(tools=[tool(parameters=loose)]).tools[0].parameters == loose

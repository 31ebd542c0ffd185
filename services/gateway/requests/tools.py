"""What the model may call, and whether it must: `tools` and `tool_choice`, and `functions` before them."""

from collections.abc import Mapping
from typing import Any, Final, NoReturn

import msgspec

from services.faults import InvalidRequest
from services.gateway.requests import strict
from services.gateway.requests.values import (
    Json,
    Parser,
    array,
    boolean,
    identifier,
    json_schema,
    members,
    not_allowed,
    one_of,
    string,
    unsupported_value,
    wrong_type,
)

MOST_TOOLS: Final = 128
MODES: Final = ("none", "auto", "required")


class FunctionTool(msgspec.Struct, frozen=True, kw_only=True):
    """A function that the model may call. Without `parameters` it takes none."""

    name: str
    description: str = ""
    parameters: dict[str, Json] | None = None
    strict: bool = False


class ToolChoice(msgspec.Struct, frozen=True, kw_only=True):
    """`mode` is one of MODES; `names` the tools that may be called, all when it is empty."""

    mode: str = "auto"
    names: tuple[str, ...] = ()
    # The client named one function, which must be called.
    named: bool = False


NO_TOOLS: Final = ToolChoice(mode="none")


class ToolUse(msgspec.Struct, frozen=True, kw_only=True):
    """What the fields about tools say together."""

    tools: tuple[FunctionTool, ...] = ()
    tool_choice: ToolChoice = NO_TOOLS
    parallel_tool_calls: bool = True
    # The client used `functions`: it expects one call at most, as a `function_call`.
    legacy_functions: bool = False


FIELDS: Final = frozenset(("tools", "tool_choice", "parallel_tool_calls", "functions", "function_call"))
"""Those that `tool_use` puts together."""


def tool_use(values: Mapping[str, Any]) -> ToolUse:
    """Out of the parsed values of FIELDS. Raises InvalidRequest for fields and names that do not go together."""
    tools, functions = values.get("tools", ()), values.get("functions", ())
    if tools and functions:
        raise not_allowed("functions", "Invalid value for 'functions': it is not allowed together with 'tools'.")
    for name, needed in (("tool_choice", "tools"), ("parallel_tool_calls", "tools"), ("function_call", "functions")):
        if name in values and needed not in values:
            raise not_allowed(
                name, f"Invalid value for '{name}': '{name}' is only allowed when '{needed}' are specified."
            )
    field = "function_call" if functions else "tool_choice"
    choice: ToolChoice = values.get(field, ToolChoice())
    known = {tool.name for tool in tools or functions}
    for name in choice.names:
        if name not in known:
            raise not_allowed(
                field,
                f"Invalid value for '{field}': no function named '{name}' was specified in the "
                f"'{'functions' if functions else 'tools'}' parameter.",
            )
    return ToolUse(
        tools=tools or functions,
        tool_choice=choice if tools or functions else NO_TOOLS,
        parallel_tool_calls=not functions and values.get("parallel_tool_calls", True),
        legacy_functions=bool(functions),
    )


# ------------------------------------------------------------------------------------------- what may be called


def parse_tools(path: str, value: Json) -> tuple[FunctionTool, ...]:
    return tuple(
        _tool(f"{path}[{index}]", item) for index, item in enumerate(array(path, value, "objects", longest=MOST_TOOLS))
    )


def parse_functions(path: str, value: Json) -> tuple[FunctionTool, ...]:
    return tuple(
        FunctionTool(**_function(f"{path}[{index}]", item, strictness=False))
        for index, item in enumerate(array(path, value, "objects", longest=MOST_TOOLS))
    )


def _tool(path: str, value: Json) -> FunctionTool:
    _refuse_custom(path, value)
    parsed = members(path, value, {"type": one_of("function"), "function": _function}, required=("type", "function"))
    return FunctionTool(**parsed["function"])


def _function(path: str, value: Json, strictness: bool = True) -> dict[str, Any]:
    parsers: dict[str, Parser] = {"name": identifier, "description": string, "parameters": json_schema}
    if strictness:
        parsers["strict"] = boolean
    parsed = members(path, value, parsers, required=("name",))
    if (parameters := parsed.get("parameters")) is not None:
        kind = parameters.get("type", "object")
        if kind != "object":
            got = kind if type(kind) is str else None
            _bad_parameters(path, parsed, f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{got}\"'.")
        if parsed.get("strict"):
            try:
                strict.check(parameters)
            except strict.NotStrict as error:
                _bad_parameters(path, parsed, str(error))
    return parsed


def _bad_parameters(path: str, parsed: Mapping[str, Any], complaint: str) -> NoReturn:
    raise InvalidRequest(
        "invalid_function_parameters",
        f"Invalid schema for function '{parsed['name']}': {complaint}",
        param=f"{path}.parameters",
    )


def _refuse_custom(path: str, value: Json) -> None:
    if type(value) is dict and value.get("type") == "custom":
        raise unsupported_value(f"{path}.type", "custom", ("function",))


# ---------------------------------------------------------------------------------------- what is to be called


def parse_tool_choice(path: str, value: Json) -> ToolChoice:
    if type(value) is str:
        return ToolChoice(mode=one_of(*MODES)(path, value))
    if type(value) is not dict:
        raise wrong_type(path, "one of a string or an object", value)
    _refuse_custom(path, value)
    if value.get("type") == "allowed_tools":
        parsed = members(path, value, {"type": string, "allowed_tools": _allowed_tools}, required=("allowed_tools",))
        allowed: ToolChoice = parsed["allowed_tools"]
        return allowed
    return ToolChoice(mode="required", names=(_named_function(path, value, ("function", "allowed_tools")),), named=True)


def parse_function_call(path: str, value: Json) -> ToolChoice:
    if type(value) is str:
        return ToolChoice(mode=one_of("none", "auto")(path, value))
    if type(value) is not dict:
        raise wrong_type(path, "one of a string or an object", value)
    parsed = members(path, value, {"name": identifier}, required=("name",))
    return ToolChoice(mode="required", names=(parsed["name"],), named=True)


def _allowed_tools(path: str, value: Json) -> ToolChoice:
    parsed = members(
        path, value, {"mode": one_of("auto", "required"), "tools": _allowed_names}, required=("mode", "tools")
    )
    return ToolChoice(mode=parsed["mode"], names=parsed["tools"])


def _allowed_names(path: str, value: Json) -> tuple[str, ...]:
    named = (
        _named_function(f"{path}[{index}]", item, ("function",))
        for index, item in enumerate(array(path, value, "objects", longest=MOST_TOOLS))
    )
    return tuple(dict.fromkeys(named))


def _named_function(path: str, value: Json, types: tuple[str, ...]) -> str:
    """The name in {"type": "function", "function": {"name": ...}}."""
    _refuse_custom(path, value)
    parsed = members(
        path,
        value,
        {"type": one_of(*types), "function": lambda path, value: members(path, value, {"name": identifier}, ("name",))},
        required=("type", "function"),
    )
    return str(parsed["function"]["name"])

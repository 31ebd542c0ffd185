"""The ids are those of transformers' `apply_chat_template`, for the default model's own files."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from modelplane.tokenizer.v1.tokenizer_pb2 import Message, RenderRequest, Tool, ToolCall
from services.catalog import DEFAULT_MODEL, Catalog, ModelSpec, ThinkingSpec, checkpoint_directory
from services.settings import PlatformSettings
from services.tokenizer.models import load
from services.tokenizer.segments import joined
from services.tokenizer.service import Tokenizer
from services.tokenizer.settings import TokenizerSettings
from tests.services.tokenizer.checkpoints import CONFIG, TOOLS_TEMPLATE, write_checkpoint

CONVERSATIONS = [
    [{"role": "user", "content": "What is the capital of France?"}],
    [{"role": "system", "content": "You answer in one word."}, {"role": "user", "content": " \n Why?\t "}],
    [
        {"role": "user", "content": "naïve café — 東京 😀 <b>&amp;</b> 3.14159 x²"},
        {"role": "assistant", "content": "def f(x):\n    return x ** 2\n\n\n"},
        {"role": "user", "content": "'quoted' \"twice\" {{ braces }} {% raw %}"},
    ],
    [{"role": "user", "content": ""}],
    [{"role": "user", "content": "long " * 5000}],
    [{"role": "user", "content": "a name", "name": "Ada"}],
]
# In a process of its own: transformers takes seconds to import and warns as it likes.
SCRIPT = """
import json, sys
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
conversations = json.load(sys.stdin)
json.dump([
    tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False, **variables)
    for messages, variables in conversations
], sys.stdout)
"""


def of_transformers(directory: Path, conversations: list[tuple[Any, dict[str, Any]]]) -> list[list[int]]:
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(directory)],
        input=json.dumps(conversations),
        capture_output=True,
        text=True,
        check=False,
        env={"HF_HUB_OFFLINE": "1"},
    )
    assert answer.returncode == 0, answer.stderr
    ids: list[list[int]] = json.loads(answer.stdout)
    return ids


@pytest.mark.engine
@pytest.mark.parametrize("checkpoint", ["default", "made here"])
def test_ids_are_those_of_transformers(checkpoint: str, tmp_path: Path) -> None:
    directory = tmp_path
    if checkpoint == "default":
        directory = checkpoint_directory(DEFAULT_MODEL, PlatformSettings().cache_directory())
        if not directory.is_dir():
            pytest.skip("the default model has not been prepared; `make up` does it")
    else:
        write_checkpoint(directory)
        (directory / "config.json").write_text('{"model_type": "llama"}')
    model = load(DEFAULT_MODEL, directory)
    expected = of_transformers(directory, [(messages, {}) for messages in CONVERSATIONS])
    for messages, token_ids in zip(CONVERSATIONS, expected, strict=True):
        assert joined(model.encode(model.render(messages))).ids() == token_ids


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "Größe <b>"}},
    "required": ["city"],
}
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}},
]
CALLS: list[dict[str, Any]] = [
    {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": {"city": "東京", "days": 1.5}}},
    {"id": "call_2", "type": "function", "function": {"name": "clock", "arguments": {}}},
]
WITH_TOOLS: list[dict[str, Any]] = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": "", "tool_calls": CALLS},
    {"role": "tool", "content": '{"rain": true}', "name": "weather", "tool_call_id": "call_1"},
    {"role": "tool", "content": "12:00", "tool_call_id": "call_2"},
    {"role": "assistant", "content": "Rain at noon."},
    {"role": "user", "content": "Thanks"},
]


def as_message(message: dict[str, Any]) -> Message:
    calls = [
        ToolCall(id=call["id"], name=call["function"]["name"], arguments=json.dumps(call["function"]["arguments"]))
        for call in message.get("tool_calls", ())
    ]
    return Message(**message | {"tool_calls": calls})


@pytest.mark.engine
async def test_tools_are_those_of_transformers(tmp_path: Path) -> None:
    directory = tmp_path / "models" / "trained"
    write_checkpoint(directory, CONFIG | {"chat_template": TOOLS_TEMPLATE})
    (directory / "config.json").write_text('{"model_type": "llama"}')
    thinking = ThinkingSpec(switch_variable="enable_thinking")
    spec = ModelSpec(name="trained", tool_format="hermes", thinking=thinking, context_tokens=10_000)
    tools = [
        Tool(
            name=tool["function"]["name"],
            description=tool["function"].get("description", ""),
            parameters=json.dumps(tool["function"]["parameters"]),
        )
        for tool in TOOLS
    ]
    with ThreadPoolExecutor(1) as executor:
        service = Tokenizer(Catalog((spec,)), tmp_path, TokenizerSettings(), executor)
        found = []
        for turns in range(2, len(WITH_TOOLS) + 1):
            messages = [as_message(message) for message in WITH_TOOLS[:turns]]
            request = RenderRequest(
                model="trained", messages=messages, tools=tools, reasoning_effort="none", organization_id="org"
            )
            found.append(list((await service.render(request)).prompt.token_ids))
    variables = {"tools": TOOLS, "enable_thinking": False}
    assert found == of_transformers(
        directory, [(WITH_TOOLS[:turns], variables) for turns in range(2, len(WITH_TOOLS) + 1)]
    )

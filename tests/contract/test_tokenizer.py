"""TokenizerService, over both wirings."""

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Tokens
from tokenizers.processors import TemplateProcessing

from modelplane.tokenizer.v1.tokenizer_api import TokenizerService
from modelplane.tokenizer.v1.tokenizer_pb2 import Message, Prompt, RenderRequest, Tool, ToolCall, ToolChoice
from services.catalog import Catalog, ModelSpec, ThinkingSpec
from services.faults import Fault, InvalidRequest, NotFound, Unavailable
from services.tokenizer.service import Tokenizer
from services.tokenizer.settings import TokenizerSettings
from tests.contract.conftest import Wire
from tests.services.tokenizer.checkpoints import CONFIG, SPECIAL, TOOLS_TEMPLATE, byte_level_tokenizer, write_checkpoint

CONTEXT_TOKENS = 100
THINKING = ThinkingSpec(switch_variable="enable_thinking", efforts=("none", "low"), budget_tokens={"low": 9})
CLOCK = Tool(name="clock", description="Tells the time", parameters='{"type": "object", "properties": {"zone": {}}}')
TEXT = "<|im_start|>user\nthe cat sat<|im_end|>\n<|im_start|>assistant\n"


def beginning_tokenizer() -> Tokens:
    """Its post-processor puts one special token before a text and another after it."""
    tokens = byte_level_tokenizer()
    begin, end = "<|endoftext|>", "<|im_end|>"
    tokens.post_processor = TemplateProcessing(
        single=f"{begin} $A {end}", special_tokens=[(token, tokens.token_to_id(token)) for token in (begin, end)]
    )
    return tokens


def ids_of(text: str) -> list[int]:
    return list(byte_level_tokenizer().encode(text, add_special_tokens=False).ids)


def text_of(prompt: Prompt) -> str:
    return str(byte_level_tokenizer().decode(list(prompt.token_ids), skip_special_tokens=False))


@pytest.fixture
async def tokenizer(wire: Wire, tmp_path: Path) -> AsyncIterator[TokenizerService]:
    write_checkpoint(tmp_path / "models" / "small")
    write_checkpoint(tmp_path / "models" / "trained", CONFIG | {"chat_template": TOOLS_TEMPLATE})
    write_checkpoint(tmp_path / "models" / "begins", tokenizer=beginning_tokenizer())
    catalog = Catalog(
        (
            ModelSpec(name="small", aliases=("alias",), context_tokens=CONTEXT_TOKENS, default_output_tokens=20),
            ModelSpec(name="scripted", engine="scripted", context_tokens=1_000_000),
            ModelSpec(name="missing"),
            ModelSpec(name="begins"),
            ModelSpec(name="trained", tool_format="llama", thinking=THINKING),
        )
    )
    with ThreadPoolExecutor(1) as executor:
        service = Tokenizer(catalog, tmp_path, TokenizerSettings(inline_bytes=1000), executor)
        yield await wire(TokenizerService, service)


async def render(
    tokenizer: TokenizerService,
    content: str = "the cat sat",
    *,
    model: str = "small",
    role: str = "user",
    bound: int = 0,
) -> Prompt:
    messages = [Message(role=role, content=content)]
    return (await tokenizer.render(RenderRequest(model=model, messages=messages, max_output_tokens=bound))).prompt


async def refusal(tokenizer: TokenizerService, content: str = "", *, model: str = "small", role: str = "user") -> Fault:
    with pytest.raises(Fault) as caught:
        await render(tokenizer, content, model=model, role=role)
    return caught.value


async def test_a_conversation_becomes_ids(tokenizer: TokenizerService) -> None:
    prompt = await render(tokenizer, model="alias")
    assert list(prompt.token_ids) == byte_level_tokenizer().encode(TEXT, add_special_tokens=False).ids
    assert prompt.model == "small"


async def test_the_output_is_bounded_by_client_model_and_context(tokenizer: TokenizerService) -> None:
    prompt = await render(tokenizer)
    left = CONTEXT_TOKENS - len(prompt.token_ids)
    assert prompt.max_output_tokens == 20
    assert (await render(tokenizer, bound=7)).max_output_tokens == 7
    assert (await render(tokenizer, bound=left)).max_output_tokens == left
    with pytest.raises(InvalidRequest, match=f"you requested {CONTEXT_TOKENS + 1} tokens") as refused:
        await render(tokenizer, bound=left + 1)
    assert refused.value.reason == "context_length_exceeded"
    scripted = await render(tokenizer, model="scripted")
    assert scripted.max_output_tokens == 1_000_000 - len(scripted.token_ids)


async def test_an_unknown_model(tokenizer: TokenizerService) -> None:
    fault = await refusal(tokenizer, model="gpt-9")
    assert isinstance(fault, NotFound)
    assert (fault.reason, fault.param) == ("model_not_found", "model")
    assert fault.message == "The model `gpt-9` does not exist or you do not have access to it."


async def test_a_model_whose_files_are_missing_is_not_ready(tokenizer: TokenizerService) -> None:
    fault = await refusal(tokenizer, model="missing")
    assert isinstance(fault, Unavailable)
    assert (fault.reason, fault.rule.status) == ("not_ready", 503)


async def test_a_role_that_the_template_refuses(tokenizer: TokenizerService) -> None:
    fault = await refusal(tokenizer, role="wizard")
    assert isinstance(fault, InvalidRequest)
    assert (fault.reason, fault.message, fault.param) == ("invalid_value", "Unknown role: wizard", "messages")


async def test_a_prompt_must_leave_room_for_an_answer(tokenizer: TokenizerService) -> None:
    frame = len((await render(tokenizer, "")).token_ids)
    assert (await render(tokenizer, "1" * (CONTEXT_TOKENS - frame - 1))).max_output_tokens == 1
    for length in (CONTEXT_TOKENS - frame, CONTEXT_TOKENS - frame + 50):
        fault = await refusal(tokenizer, "1" * length)
        assert isinstance(fault, InvalidRequest)
        assert (fault.reason, fault.param) == ("context_length_exceeded", "messages")
        assert fault.message == (
            "This model's maximum context length is 100 tokens. However, your messages resulted in "
            f"{length + frame} tokens. Please reduce the length of the messages."
        )


async def test_a_prompt_that_cannot_fit_is_refused_by_its_size(tokenizer: TokenizerService) -> None:
    fault = await refusal(tokenizer, "the cat " * 100_000)
    assert fault.reason == "context_length_exceeded"
    assert "resulted in at least " in fault.message


async def test_long_and_short_texts_give_the_same_ids(tokenizer: TokenizerService) -> None:
    short, long = [await render(tokenizer, "é" * count, model="scripted") for count in (100, 10_000)]
    frame = len((await render(tokenizer, "", model="scripted")).token_ids)
    assert (len(short.token_ids), len(long.token_ids)) == (frame + 200, frame + 20_000)
    assert list(short.token_ids[:50]) == list(long.token_ids[:50])


async def test_a_conversations_next_turn_has_the_ids_of_the_whole(tokenizer: TokenizerService) -> None:
    messages = [Message(role=role, content=f"the cat {role}") for role in ("user", "assistant", "user")]
    for turns in (1, 2, 3, 3):
        request = RenderRequest(model="small", messages=messages[:turns], organization_id="org")
        prompt = (await tokenizer.render(request)).prompt
        whole = (await tokenizer.render(RenderRequest(model="small", messages=messages[:turns]))).prompt
        assert prompt == whole


async def test_a_model_that_was_not_trained_is_told_of_tools(tokenizer: TokenizerService) -> None:
    call = ToolCall(id="call_1", name="clock", arguments='{"zone":"UTC"}')
    messages = [
        Message(role="user", content="Time?"),
        Message(role="assistant", tool_calls=[call]),
        Message(role="tool", content="noon", name="clock", tool_call_id="call_1"),
    ]
    choice = ToolChoice(required=True, names=["clock"])
    request = RenderRequest(model="scripted", messages=messages, tools=[CLOCK], tool_choice=choice)
    prompt = (await tokenizer.render(request)).prompt
    assert prompt.tool_format == "hermes"
    told = bytes(token for token in prompt.token_ids if token < 256)
    assert len(told) == len(prompt.token_ids) - 9


async def test_a_trained_model_gets_tools_in_its_own_form(tokenizer: TokenizerService) -> None:
    messages = [Message(role="user", content="Time?")]
    prompt = (await tokenizer.render(RenderRequest(model="trained", messages=messages, tools=[CLOCK]))).prompt
    assert prompt.tool_format == "llama"
    assert text_of(prompt).startswith('<|im_start|>system\n# Tools\n<tools>\n{"type": "function"')
    without = (await tokenizer.render(RenderRequest(model="trained", messages=messages))).prompt
    assert without.tool_format == ""
    assert "# Tools" not in text_of(without)


async def test_what_a_template_cannot_do_with_a_tool_is_refused(tokenizer: TokenizerService) -> None:
    tool = Tool(name="clock", parameters='{"type": "object", "properties": 7}')
    request = RenderRequest(model="trained", messages=[Message(role="user")], tools=[tool])
    with pytest.raises(InvalidRequest, match="mapping") as refused:
        await tokenizer.render(request)
    assert refused.value.reason == "invalid_value"


async def test_a_schema_is_told(tokenizer: TokenizerService) -> None:
    request = RenderRequest(model="trained", messages=[Message(role="user")], response_schema='{"type":"object"}')
    prompt = (await tokenizer.render(request)).prompt
    words = 'Answer with a JSON object that follows this JSON schema:\n{"type":"object"}'
    assert text_of(prompt).startswith(f"<|im_start|>system\n{words}<|im_end|>\n<|im_start|>user")
    assert prompt.tool_format == ""


async def test_an_effort_says_how_to_think(tokenizer: TokenizerService) -> None:
    def request(effort: str, model: str = "trained") -> RenderRequest:
        return RenderRequest(model=model, messages=[Message(role="user")], reasoning_effort=effort)

    low, none = [(await tokenizer.render(request(effort))).prompt for effort in ("low", "none")]
    assert (low.thinking.begin, low.thinking.end, low.thinking.budget_tokens) == ("<think>", "</think>", 9)
    assert not none.HasField("thinking")
    assert text_of(none) == text_of(low) + "<think>\n\n</think>\n\n"
    with pytest.raises(InvalidRequest, match="Supported values are: 'none' and 'low'") as refused:
        await tokenizer.render(request("high"))
    assert (refused.value.rule.code, refused.value.param) == ("unsupported_value", "reasoning_effort")
    with pytest.raises(InvalidRequest, match="Unrecognized request argument") as refused:
        await tokenizer.render(request("low", model="small"))
    assert (refused.value.rule.code, refused.value.param) == ("unsupported_parameter", "reasoning_effort")
    assert not (await tokenizer.render(request("none", model="small"))).prompt.HasField("thinking")


async def raw(tokenizer: TokenizerService, model: str = "small", **prompt: Any) -> list[int]:
    return list((await tokenizer.render(RenderRequest(model=model, **prompt))).prompt.token_ids)


async def test_a_raw_text_is_continued_as_it_is(tokenizer: TokenizerService) -> None:
    assert await raw(tokenizer, text="the cat sat") == ids_of("the cat sat")
    special = await raw(tokenizer, text="x<|im_end|>")
    assert special == ids_of("x<") + ids_of("|im_end|>")
    assert byte_level_tokenizer().decode(special) == "x<|im_end|>"


async def test_a_raw_text_begins_as_the_tokenizer_says(tokenizer: TokenizerService) -> None:
    assert await raw(tokenizer, "begins", text="the cat") == ids_of("<|endoftext|>the cat")
    # Where the tokenizer says nothing, an empty text begins with the checkpoint's own token.
    assert await raw(tokenizer, "begins") == ids_of("<|endoftext|>")
    assert await raw(tokenizer) == ids_of("<|im_start|>")
    # A template puts its own token there.
    messages = [Message(role="user", content="the cat sat")]
    assert await raw(tokenizer, "begins", messages=messages) == ids_of(TEXT)


async def test_raw_ids_are_taken_as_they_are(tokenizer: TokenizerService) -> None:
    size = byte_level_tokenizer().get_vocab_size()
    ids = [*map(byte_level_tokenizer().token_to_id, SPECIAL), size - 1]
    assert await raw(tokenizer, token_ids=ids) == ids
    with pytest.raises(InvalidRequest, match=f"has no token {size}; its tokens are 0 to {size - 1}") as refused:
        await raw(tokenizer, token_ids=[5, size])
    assert (refused.value.reason, refused.value.param) == ("invalid_value", "prompt")


@pytest.mark.parametrize("prompt", [{"text": "1" * 100}, {"token_ids": [5] * 100}], ids=["text", "ids"])
async def test_a_raw_prompt_must_leave_room_for_an_answer(tokenizer: TokenizerService, prompt: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="your prompt resulted in 100 tokens") as refused:
        await raw(tokenizer, **prompt)
    assert (refused.value.reason, refused.value.param) == ("context_length_exceeded", "prompt")
    with pytest.raises(InvalidRequest, match=r"101 tokens \(1 in the prompt, 100 in the completion\)") as refused:
        await raw(tokenizer, max_output_tokens=100, **{name: value[:1] for name, value in prompt.items()})
    assert (refused.value.reason, refused.value.param) == ("context_length_exceeded", "prompt")

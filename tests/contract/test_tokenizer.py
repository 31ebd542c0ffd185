"""TokenizerService, over both wirings."""

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelplane.tokenizer.v1.tokenizer_api import TokenizerService
from modelplane.tokenizer.v1.tokenizer_pb2 import Message, Prompt, RenderRequest
from services.catalog import Catalog, ModelSpec
from services.faults import Fault, InvalidRequest, NotFound, Unavailable
from services.tokenizer.service import Tokenizer
from services.tokenizer.settings import TokenizerSettings
from tests.contract.conftest import Wire
from tests.services.tokenizer.checkpoints import byte_level_tokenizer, write_checkpoint

CONTEXT_TOKENS = 100
TEXT = "<|im_start|>user\nthe cat sat<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture
async def tokenizer(wire: Wire, tmp_path: Path) -> AsyncIterator[TokenizerService]:
    write_checkpoint(tmp_path / "models" / "small")
    catalog = Catalog(
        (
            ModelSpec(name="small", aliases=("alias",), context_tokens=CONTEXT_TOKENS, default_output_tokens=20),
            ModelSpec(name="scripted", engine="scripted", context_tokens=1_000_000),
            ModelSpec(name="missing"),
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

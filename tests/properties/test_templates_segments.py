"""What is remembered of earlier prompts never shows: the ids are those of a prompt encoded in one piece."""

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelplane.tokenizer.v1.tokenizer_pb2 import Message, RenderRequest
from services.catalog import DEFAULT_MODEL, Catalog, ModelSpec, checkpoint_directory
from services.settings import PlatformSettings
from services.tokenizer.service import Tokenizer
from services.tokenizer.settings import TokenizerSettings

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<repo_name>")
texts = st.lists(
    st.sampled_from((*SPECIAL, "<|im_", "end|>", "<", "\ufdd0", "\n", "  ", "The cat's 12", " sat.", "\u0301", "東京"))
    | st.text(max_size=8),
    max_size=6,
).map("".join)
messages = st.builds(Message, role=st.sampled_from(("system", "user", "assistant")), content=texts)
conversations = st.lists(messages, min_size=1, max_size=5)


SPECS = [
    ModelSpec(name="served", checkpoint=DEFAULT_MODEL.name),
    ModelSpec(name="served", engine="scripted"),
]


@pytest.fixture(params=SPECS, ids=lambda spec: spec.engine)
async def tokenizer(request: pytest.FixtureRequest) -> AsyncIterator[Tokenizer]:
    spec: ModelSpec = request.param
    cache = PlatformSettings().cache_directory()
    if spec.engine != "scripted" and not checkpoint_directory(spec, cache).is_dir():
        pytest.skip("the default model has not been prepared; `make up` does it")
    with ThreadPoolExecutor(1) as executor:
        # Small enough that some is forgotten and some text is encoded in a thread.
        yield Tokenizer(
            Catalog((spec,)), cache, TokenizerSettings(inline_bytes=100, segment_cache_bytes=6_000), executor
        )


# What earlier examples left in the cache is part of what is tested.
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(conversation=conversations)
async def test_ids_are_those_of_the_whole(tokenizer: Tokenizer, conversation: list[Message]) -> None:
    whole = await tokenizer.render(RenderRequest(model="served", messages=conversation))
    for organization in ("one", "one", "another"):
        for turns in range(1, len(conversation) + 1):
            request = RenderRequest(model="served", messages=conversation[:turns], organization_id=organization)
            remembered = await tokenizer.render(request)
        assert remembered == whole

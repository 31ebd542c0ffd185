"""Turns conversations into token ids, once per request; everything after works with the ids.

Short texts are encoded on the event loop, long ones in a thread, so that one long prompt does not hold up the
rest. A prompt that cannot fit its model's context window is refused before it is encoded where its size alone
proves it.
"""

import asyncio
from array import array
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from hashlib import blake2b
from pathlib import Path

from modelplane.tokenizer.v1 import tokenizer_pb2
from services import telemetry
from services.catalog import Catalog, ModelSpec, checkpoint_directory
from services.compose import Context
from services.faults import InvalidRequest, NotFound, Unavailable
from services.tokenizer.models import CheckpointError, PromptModel, load
from services.tokenizer.settings import TokenizerSettings
from services.tokenizer.templates import RenderError

# What the contract promises to hash.
PREFIX_TOKENS = 256

log = telemetry.logger(__name__)


class Tokenizer:
    """TokenizerService over the models of a catalogue. Models are loaded when first needed and kept."""

    def __init__(
        self, catalog: Catalog, cache: Path, settings: TokenizerSettings, executor: ThreadPoolExecutor
    ) -> None:
        self._catalog = catalog
        self._cache = cache
        self._settings = settings
        self._executor = executor
        self._models: dict[str, PromptModel] = {}
        self._loading = asyncio.Lock()

    async def render(self, request: tokenizer_pb2.RenderRequest, /) -> tokenizer_pb2.RenderResponse:
        """The token ids of a conversation. Raises the contract's faults, and not_ready while the files are missing."""
        spec = self._catalog.get(request.model)
        if spec is None:
            message = f"The model `{request.model}` does not exist or you do not have access to it."
            raise NotFound("model_not_found", message, param="model")
        model = self._models.get(spec.name) or await self._load(spec)
        try:
            pieces = model.render([_message(message) for message in request.messages])
        except RenderError as error:
            raise InvalidRequest("invalid_value", str(error), param="messages") from error
        token_ids = await self._encode(model, pieces)
        prompt = tokenizer_pb2.Prompt(
            token_ids=token_ids,
            model=spec.name,
            max_output_tokens=_max_output_tokens(spec, len(token_ids), request.max_output_tokens),
            prefix_hash=_prefix_hash(token_ids),
        )
        return tokenizer_pb2.RenderResponse(prompt=prompt)

    async def ping(self) -> None:
        """Loads every model that is not loaded yet. Raises Unavailable while one cannot be."""
        for spec in self._catalog:
            if spec.name not in self._models:
                await self._load(spec)

    async def _load(self, spec: ModelSpec) -> PromptModel:
        async with self._loading:
            if model := self._models.get(spec.name):
                return model
            loop = asyncio.get_running_loop()
            directory = checkpoint_directory(spec, self._cache)
            try:
                model = await loop.run_in_executor(self._executor, load, spec, directory)
            except CheckpointError as error:
                log.warning("tokenizer cannot be loaded", model=spec.name, error=error)
                raise Unavailable("not_ready", f"The model `{spec.name}` is not ready yet.") from error
            self._models[spec.name] = model
            return model

    async def _encode(self, model: PromptModel, pieces: list[str]) -> list[int]:
        text = "".join(pieces).encode()
        at_least = model.min_tokens(text)
        if at_least >= model.spec.context_tokens:
            raise _too_long(model.spec, f"at least {at_least}")
        if len(text) <= self._settings.inline_bytes:
            return model.encode(pieces)
        return await asyncio.get_running_loop().run_in_executor(self._executor, model.encode, pieces)


def _message(message: tokenizer_pb2.Message) -> dict[str, str]:
    """As templates know it; a name only where there is one, because templates ask whether it is defined."""
    fields = {"role": message.role, "content": message.content}
    return {**fields, "name": message.name} if message.name else fields


def _max_output_tokens(spec: ModelSpec, prompt_tokens: int, bound: int) -> int:
    """The client's bound, or the model's own within what the context window leaves.

    Raises context_length_exceeded, as OpenAI does, also where the client's bound cannot be honoured.
    """
    left = spec.context_tokens - prompt_tokens
    if left < 1:
        raise _too_long(spec, str(prompt_tokens))
    if bound > left:
        message = (
            f"This model's maximum context length is {spec.context_tokens} tokens. However, you requested "
            f"{prompt_tokens + bound} tokens ({prompt_tokens} in the messages, {bound} in the completion). "
            "Please reduce the length of the messages or completion."
        )
        raise InvalidRequest("context_length_exceeded", message, param="messages")
    return bound or min(spec.default_output_tokens or left, left)


def _too_long(spec: ModelSpec, prompt_tokens: str) -> InvalidRequest:
    message = (
        f"This model's maximum context length is {spec.context_tokens} tokens. However, your messages resulted in "
        f"{prompt_tokens} tokens. Please reduce the length of the messages."
    )
    return InvalidRequest("context_length_exceeded", message, param="messages")


def _prefix_hash(token_ids: list[int]) -> int:
    prefix = array("I", token_ids[:PREFIX_TOKENS]).tobytes()
    return int.from_bytes(blake2b(prefix, digest_size=8).digest(), "big")


@asynccontextmanager
async def build(context: Context) -> AsyncIterator[Tokenizer]:
    settings = context.settings(TokenizerSettings)
    executor = ThreadPoolExecutor(settings.threads, thread_name_prefix="tokenizer")
    try:
        yield Tokenizer(context.catalog, context.platform.cache_directory(), settings, executor)
    finally:
        executor.shutdown(cancel_futures=True)

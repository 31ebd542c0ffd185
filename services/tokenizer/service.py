"""Turns conversations into token ids, once per request; everything after works with the ids.

Short texts are encoded on the event loop, long ones in a thread, so that one long prompt does not hold up the
rest. A prompt that cannot fit its model's context window is refused before it is encoded where its size alone
proves it.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from hashlib import blake2b
from pathlib import Path

from modelplane.chat_inference.v1.chat_inference_pb2 import Thinking
from modelplane.tokenizer.v1 import tokenizer_pb2
from services import telemetry
from services.catalog import Catalog, ModelSpec, checkpoint_directory
from services.compose import Context
from services.faults import InvalidRequest, NotFound, Unavailable
from services.tokenizer.conversations import SUPPLIED_FORMAT, conversation
from services.tokenizer.images import counted, prefix
from services.tokenizer.models import CheckpointError, PromptModel, load
from services.tokenizer.segments import Encoded, SegmentCache, encoded, joined
from services.tokenizer.settings import TokenizerSettings
from services.tokenizer.templates import RenderError
from services.tokenizer.thinking import effort_of

# What the contract promises to hash.
PREFIX_TOKENS = 256

log = telemetry.logger(__name__)


class Tokenizer:
    """TokenizerService over the models of a catalogue. Models are loaded when first needed and kept.

    It is ready once the `required` ones are loaded (default: all), while they are in the catalogue.
    """

    def __init__(
        self,
        catalog: Catalog,
        cache: Path,
        settings: TokenizerSettings,
        executor: ThreadPoolExecutor,
        required: Collection[str] | None = None,
    ) -> None:
        self._catalog = catalog
        self._required = [spec.name for spec in catalog] if required is None else required
        self._cache = cache
        self._settings = settings
        self._executor = executor
        self._segments = SegmentCache(settings.segment_cache_bytes)
        self._models: dict[str, PromptModel] = {}
        self._loading = asyncio.Lock()
        self._renewing: set[asyncio.Task[None]] = set()

    async def render(self, request: tokenizer_pb2.RenderRequest, /) -> tokenizer_pb2.RenderResponse:
        """The token ids of a conversation. Raises the contract's faults, and not_ready while the files are missing."""
        spec = self._catalog.get(request.model)
        if spec is None:
            message = f"The model `{request.model}` does not exist or you do not have access to it."
            raise NotFound("model_not_found", message, param="model")
        model = self._models.get(spec.name) or await self._load(spec)
        images = counted(model.images, request.messages)
        if request.messages:
            noun = "messages"
            tokens, thinking = await self._conversation(model, request)
        else:
            noun = "prompt"
            tokens, thinking = await self._raw(model, request), None
        response = tokenizer_pb2.RenderResponse()
        prompt = response.prompt
        prompt.MergeFromString(tokens.wire)
        prompt.model = spec.name
        prompt.image_tokens = sum(image.tokens - 1 for image in images)
        prompt_tokens = tokens.tokens + prompt.image_tokens
        prompt.max_output_tokens = _max_output_tokens(spec, prompt_tokens, request.max_output_tokens, noun)
        prompt.prefix_hash = _prefix_hash(prefix(tokens, images, PREFIX_TOKENS))
        if request.tools:
            prompt.tool_format = spec.tool_format or SUPPLIED_FORMAT
        if thinking is not None:
            prompt.thinking.CopyFrom(thinking)
        return response

    async def ping(self) -> None:
        """Loads every required model that is not loaded yet. Raises Unavailable while one cannot be."""
        for spec in self._catalog:
            if spec.name not in self._models and spec.name in self._required:
                await self._load(spec)

    def renew(self) -> None:
        """Goes by the catalogue as it is now: what changed is loaded anew, and serves as it was until then."""
        now = {spec.name: spec for spec in self._catalog}
        for name in self._models.keys() - now.keys():
            del self._models[name]
        for spec in now.values():
            if spec.name not in self._models or self._models[spec.name].spec is not spec:
                task = asyncio.get_running_loop().create_task(self._renew(spec))
                self._renewing.add(task)
                task.add_done_callback(self._renewing.discard)

    async def close(self) -> None:
        for task in self._renewing:
            task.cancel()
        await asyncio.gather(*self._renewing, return_exceptions=True)

    async def _renew(self, spec: ModelSpec) -> None:
        # It is logged, and tried again when the model is asked for.
        with suppress(Unavailable):
            await self._load(spec)

    async def _load(self, spec: ModelSpec) -> PromptModel:
        async with self._loading:
            model = self._models.get(spec.name)
            if model and model.spec is spec:
                return model
            loop = asyncio.get_running_loop()
            directory = checkpoint_directory(spec, self._cache)
            try:
                model = await loop.run_in_executor(self._executor, load, spec, directory)
            except CheckpointError as error:
                log.warning("tokenizer cannot be loaded", model=spec.name, error=error)
                raise Unavailable("not_ready", f"The model `{spec.name}` is not ready yet.") from error
            if self._catalog.get(spec.name) is spec:
                self._models[spec.name] = model
            return model

    async def _conversation(
        self, model: PromptModel, request: tokenizer_pb2.RenderRequest
    ) -> tuple[Encoded, Thinking | None]:
        """The conversation as one sequence. Encodes what is not remembered of the organisation's earlier prompts."""
        effort = effort_of(model.spec, request.reasoning_effort)
        try:
            pieces = model.render(*conversation(request, model.manners), effort.variables)
        except RenderError as error:
            raise InvalidRequest("invalid_value", str(error), param="messages") from error
        size = _size(model, pieces, "messages")
        organization = request.organization_id
        segments = model.split(pieces) if organization else None
        if segments is None:
            return joined(await self._encode(model, pieces, size)), effort.thinking
        found, missing = self._segments.recall(organization, model.mark, segments, model.known)
        if missing:
            fresh = dict(zip(missing, await self._encode(model, missing, size), strict=True))
            self._segments.remember(organization, model.mark, fresh)
            found |= fresh
        return joined([found[segment] for segment in segments]), effort.thinking

    async def _raw(self, model: PromptModel, request: tokenizer_pb2.RenderRequest) -> Encoded:
        """A prompt that no template frames: the client's ids, or its text."""
        if token_ids := request.token_ids:
            if (largest := max(token_ids)) >= model.vocabulary:
                message = (
                    f"Invalid value for 'prompt': the model `{model.spec.name}` has no token {largest}; "
                    f"its tokens are 0 to {model.vocabulary - 1}."
                )
                raise InvalidRequest("invalid_value", message, param="prompt")
            if model.images and model.images.placeholder in token_ids:
                message = f"Invalid value for 'prompt': the token {model.images.placeholder} stands for an image."
                raise InvalidRequest("invalid_value", message, param="prompt")
            return encoded(token_ids)
        if not request.text:
            return model.blank
        pieces = model.plain(request.text)
        size = _size(model, pieces, "prompt")
        return joined([model.start, *await self._encode(model, pieces, size)])

    async def _encode(self, model: PromptModel, texts: list[str], most_bytes: int) -> list[Encoded]:
        """Each text encoded; together they have at most so many bytes, or fewer."""
        inline = self._settings.inline_bytes
        if most_bytes <= inline or sum(len(text.encode()) for text in texts) <= inline:
            return model.encode(texts)
        return await asyncio.get_running_loop().run_in_executor(self._executor, model.encode, texts)


def _size(model: PromptModel, pieces: list[str], noun: str) -> int:
    """Of the pieces in bytes. Raises context_length_exceeded where that alone proves it."""
    text = "".join(pieces).encode()
    at_least = model.min_tokens(text)
    if at_least >= model.spec.context_tokens:
        raise _too_long(model.spec, f"at least {at_least}", noun)
    return len(text)


def _max_output_tokens(spec: ModelSpec, prompt_tokens: int, bound: int, noun: str) -> int:
    """The client's bound, or the model's own within what the context window leaves.

    Raises context_length_exceeded, as OpenAI does, also where the client's bound cannot be honoured. `noun` is what
    the client sent: messages, or a prompt.
    """
    left = spec.context_tokens - prompt_tokens
    if left < 1:
        raise _too_long(spec, str(prompt_tokens), noun)
    if bound > left:
        message = (
            f"This model's maximum context length is {spec.context_tokens} tokens. However, you requested "
            f"{prompt_tokens + bound} tokens ({prompt_tokens} in the {noun}, {bound} in the completion). "
            f"Please reduce the length of the {noun} or completion."
        )
        raise InvalidRequest("context_length_exceeded", message, param=noun)
    return bound or min(spec.default_output_tokens or left, left)


def _too_long(spec: ModelSpec, prompt_tokens: str, noun: str) -> InvalidRequest:
    message = (
        f"This model's maximum context length is {spec.context_tokens} tokens. However, your {noun} resulted in "
        f"{prompt_tokens} tokens. Please reduce the length of the {noun}."
    )
    return InvalidRequest("context_length_exceeded", message, param=noun)


def _prefix_hash(beginning: bytes) -> int:
    return int.from_bytes(blake2b(beginning, digest_size=8).digest(), "big")


@asynccontextmanager
async def build(context: Context) -> AsyncIterator[Tokenizer]:
    settings = context.settings(TokenizerSettings)
    executor = ThreadPoolExecutor(settings.threads, thread_name_prefix="tokenizer")
    required = () if context.catalog.fluid else None
    tokenizer = Tokenizer(context.catalog, context.platform.cache_directory(), settings, executor, required)
    unsubscribe = context.catalog.subscribe(tokenizer.renew)
    if context.catalog.fluid:
        # Readiness does not wait for them.
        tokenizer.renew()
    try:
        yield tokenizer
    finally:
        unsubscribe()
        await tokenizer.close()
        executor.shutdown(cancel_futures=True)

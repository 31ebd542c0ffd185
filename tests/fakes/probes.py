"""Services that do nothing but show how a call reached them."""

import asyncio
from collections.abc import AsyncIterator

from modelplane.chat_inference.v1.chat_inference_pb2 import (
    Delta,
    GenerateRequest,
    GenerateResponse,
    SessionRequest,
    SessionResponse,
)
from modelplane.tokenizer.v1.tokenizer_pb2 import Prompt, RenderRequest, RenderResponse
from services import context, telemetry


class ProbeTokenizer:
    """Renders to as many tokens as it has messages, and keeps what was around each call."""

    def __init__(self) -> None:
        # Raised by every call.
        self.error: Exception | None = None
        # Calls wait until it is set.
        self.released = asyncio.Event()
        self.released.set()
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.request_id = ""
        self.remaining_s: float | None = None
        self.traceparent: str | None = None

    async def render(self, request: RenderRequest, /) -> RenderResponse:
        self.request_id = context.request_id()
        self.remaining_s = context.remaining_s()
        self.traceparent = telemetry.traceparent()
        self.started.set()
        try:
            await self.released.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self.error is not None:
            raise self.error
        return RenderResponse(prompt=Prompt(model=request.model, token_ids=range(len(request.messages))))


class ProbeInference:
    """Generates the numbers from 0 up to the request's bound, without one for ever; a session answers each start."""

    def __init__(self) -> None:
        # Raised after this many deltas.
        self.error: Exception | None = None
        self.fails_after = 0
        # Added to every delta's text.
        self.padding = ""
        self.ended = asyncio.Event()
        # The request id in force at the end: what ends a stream must not have lost it.
        self.request_id_at_end = ""
        self.received: list[str] = []

    async def generate(self, request: GenerateRequest, /) -> AsyncIterator[GenerateResponse]:
        count = 0
        try:
            while not request.sampling.max_output_tokens or count < request.sampling.max_output_tokens:
                if self.error is not None and count == self.fails_after:
                    raise self.error
                yield GenerateResponse(delta=Delta(index=count, text=context.request_id() + self.padding))
                count += 1
        finally:
            self.request_id_at_end = context.request_id()
            self.ended.set()

    async def session(self, requests: AsyncIterator[SessionRequest], /) -> AsyncIterator[SessionResponse]:
        try:
            async for request in requests:
                for started in request.starts:
                    if self.error is not None and len(self.received) == self.fails_after:
                        raise self.error
                    self.received.append(started.request_id)
                    text = context.request_id() + self.padding
                    yield SessionResponse(deltas=[Delta(request_id=started.request_id, text=text)])
        finally:
            self.request_id_at_end = context.request_id()
            self.ended.set()

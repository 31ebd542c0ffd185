"""POST /v1/chat/completions: parse, run the pipeline, render."""

import asyncio
from collections.abc import Mapping

import msgspec

from services.gateway.calls import Call
from services.gateway.completions import Identity, completion_object, new_identity
from services.gateway.outputs.answers import answers
from services.gateway.pipeline import Pipeline
from services.gateway.requests.chat import ChatRequest, parse_chat
from services.gateway.runs import Run
from services.gateway.settings import GatewaySettings
from services.gateway.sse import Chunks, stream
from services.gateway.work import ChatWork

OPERATION = "chat.completions"
# Bodies up to this size are parsed in less than 2 ms, whatever they ask.
INLINE_BYTES = 64 * 1024


class ChatCompletions:
    """The endpoint. `fingerprints` has the system fingerprint of each model's deployment."""

    def __init__(self, pipeline: Pipeline, fingerprints: Mapping[str, str], settings: GatewaySettings) -> None:
        self._pipeline = pipeline
        self._fingerprints = fingerprints
        self._settings = settings

    async def __call__(self, call: Call) -> None:
        call.operation = OPERATION
        call.principal = await self._pipeline.authenticate(*call.credentials())
        body = await call.body(self._settings.max_body_bytes)
        # A long one, parsed here, would hold up everybody else.
        chat = parse_chat(body) if len(body) <= INLINE_BYTES else await asyncio.to_thread(parse_chat, body)
        run = call.run = self._pipeline.start(call.request_id, OPERATION, call.principal, ChatWork(chat))
        with call.aborting(run):
            if chat.stream:
                await stream(call, run, lambda run: self._chunks(run, chat), self._settings.keep_alive_comment_s)
                return
            deltas = await run.outlet.take_all()
            usage = deltas[-1].usage
            answer = completion_object(self._identify(run), chat, deltas, usage, answers(chat, run.tool_format))
            await call.respond(200, msgspec.json.encode(answer))

    def _chunks(self, run: Run, chat: ChatRequest) -> Chunks:
        return Chunks(self._identify(run), chat, answers(chat, run.tool_format))

    def _identify(self, run: Run) -> Identity:
        return new_identity(run, self._fingerprints.get(run.model, ""))

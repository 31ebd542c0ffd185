"""POST /v1/chat/completions: parse, run the pipeline, render."""

from collections.abc import Mapping
from functools import partial

import msgspec

from services.gateway.archive import Archive, KeptChunks, request_messages, stored_completion
from services.gateway.calls import Call, parsed
from services.gateway.completions import Identity, completion_object, new_identity
from services.gateway.idempotency import Idempotency, digest
from services.gateway.outputs.answers import answers
from services.gateway.pipeline import Pipeline
from services.gateway.requests.chat import ChatRequest, parse_chat
from services.gateway.runs import Run
from services.gateway.settings import GatewaySettings
from services.gateway.sse import Chunks, stream
from services.gateway.work import ChatWork


class ChatCompletions:
    """The endpoint. `fingerprints` has the system fingerprint of each model's deployment."""

    def __init__(
        self,
        pipeline: Pipeline,
        archive: Archive,
        idempotency: Idempotency,
        fingerprints: Mapping[str, str],
        settings: GatewaySettings,
    ) -> None:
        self._pipeline = pipeline
        self._archive = archive
        self._idempotency = idempotency
        self._fingerprints = fingerprints
        self._settings = settings

    async def __call__(self, call: Call) -> None:
        body = await call.body(self._settings.max_body_bytes)
        chat = await parsed(parse_chat, body)
        messages = await parsed(request_messages, body) if chat.store else b""
        fingerprint = await digest(call, body)
        # With images in it, too much to hold while the model answers.
        del body
        endpoint = partial(self._answer, call, chat, messages)
        await self._idempotency.answer(call, fingerprint, endpoint)

    async def _answer(self, call: Call, chat: ChatRequest, messages: bytes) -> None:
        """`messages` as the client wrote them, where they are to be stored."""
        run = call.run = self._pipeline.start(call.request_id, call.operation, call.caller, ChatWork(chat))
        with call.aborting(run):
            if chat.stream:
                await self._stream(call, run, chat, messages)
                return
            deltas = await run.outlet.take_all()
            usage, identity = deltas[-1].usage, self._identify(run)
            answer = completion_object(identity, chat, deltas, usage, answers(chat, run.tool_format))
            body = msgspec.json.encode(answer)
            await call.respond(200, body)
        if chat.store:
            self._archive.keep(stored_completion(run, chat, messages, identity.id, body))

    async def _stream(self, call: Call, run: Run, chat: ChatRequest, messages: bytes) -> None:
        beat_s = self._settings.keep_alive_comment_s
        if not chat.store:
            await stream(call, run, lambda run: self._chunks(run, chat), beat_s)
            return
        written: list[KeptChunks] = []

        def keep(run: Run) -> KeptChunks:
            written.append(KeptChunks(self._identify(run), chat, run.tool_format))
            return written[0]

        await stream(call, run, keep, beat_s)
        if call.fault is None:
            body = msgspec.json.encode(written[0].completion())
            self._archive.keep(stored_completion(run, chat, messages, written[0].identity.id, body))

    def _chunks(self, run: Run, chat: ChatRequest) -> Chunks:
        return Chunks(self._identify(run), chat, answers(chat, run.tool_format))

    def _identify(self, run: Run) -> Identity:
        return new_identity(run, self._fingerprints.get(run.model, ""))

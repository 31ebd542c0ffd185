"""POST /v1/chat/completions: parse, run the pipeline, render."""

from collections.abc import Mapping

import msgspec

from services.gateway.calls import Call
from services.gateway.completions import Identity, completion_object, new_identity
from services.gateway.pipeline import Pipeline
from services.gateway.requests import parse_chat
from services.gateway.sse import stream

OPERATION = "chat.completions"


class ChatCompletions:
    """The endpoint. `fingerprints` has the system fingerprint of each model's deployment."""

    def __init__(self, pipeline: Pipeline, fingerprints: Mapping[str, str], max_body_bytes: int) -> None:
        self._pipeline = pipeline
        self._fingerprints = fingerprints
        self._max_body_bytes = max_body_bytes

    async def __call__(self, call: Call) -> None:
        call.operation = OPERATION
        call.principal = await self._pipeline.authenticate(*call.credentials())
        chat = parse_chat(await call.body(self._max_body_bytes))
        run = call.run = self._pipeline.start(call.request_id, OPERATION, call.principal, chat)
        with call.aborting(run):
            if chat.stream:
                await stream(call, run, self._identify, chat.include_usage)
                return
            deltas = await run.outlet.take_all()
            usage = deltas[-1].usage
            answer = completion_object(self._identify(run.model), chat.n, deltas, usage)
            await call.respond(200, msgspec.json.encode(answer))

    def _identify(self, model: str) -> Identity:
        return new_identity(model, self._fingerprints.get(model, ""))

"""POST /v1/completions: prompts that are continued as they are, each by a run of its own."""

import os
import time
from collections.abc import Mapping, Sequence
from functools import partial

import msgspec

from modelplane.chat_inference.v1.chat_inference_pb2 import Sampling
from modelplane.tokenizer.v1 import tokenizer_pb2
from services.faults import InvalidRequest
from services.gateway.calls import Call, parsed
from services.gateway.completions import Identity
from services.gateway.idempotency import Idempotency, digest
from services.gateway.merged_runs import MergedRuns
from services.gateway.pipeline import Pipeline
from services.gateway.requests.messages import ImageReference
from services.gateway.requests.text import Prompt, TextRequest, parse_text
from services.gateway.runs import Run
from services.gateway.settings import GatewaySettings
from services.gateway.sse import stream
from services.gateway.texts import TextChunks, text_object


class TextWork:
    """One prompt of a legacy completion."""

    def __init__(self, request: TextRequest, prompt: Prompt) -> None:
        self._request = request
        self._prompt = prompt
        self.model = request.model
        self.n = request.best_of
        self.stream = request.stream
        self.images: Sequence[ImageReference] = ()
        self.max_output_tokens: int | None = request.max_tokens
        self.service_tier = "auto"
        self.prompt_cache_key = ""

    def render_request(self, organization_id: str) -> tokenizer_pb2.RenderRequest:
        """The prompt without a template."""
        text, token_ids = (self._prompt, ()) if isinstance(self._prompt, str) else ("", self._prompt)
        return tokenizer_pb2.RenderRequest(
            model=self.model,
            text=text,
            token_ids=token_ids,
            # 0 would mean no bound. The engine needs room for a token even to read the prompt alone.
            max_output_tokens=self._request.max_tokens or 1,
            organization_id=organization_id,
        )

    def sampling(self, prompt: tokenizer_pb2.Prompt) -> Sampling:
        """Raises InvalidRequest where the model cannot begin a new document."""
        if not prompt.token_ids:
            message = f"Invalid value for 'prompt': the model `{prompt.model}` cannot begin without a prompt."
            raise InvalidRequest("invalid_value", message, param="prompt")
        request = self._request
        # The best of several are found by their log probabilities.
        top_logprobs = 0 if request.logprobs is None and request.best_of > request.n else request.logprobs
        return Sampling(
            temperature=request.temperature,
            top_p=request.top_p,
            stop=request.stop,
            seed=request.seed,
            n=self.n,
            max_output_tokens=request.max_tokens,
            frequency_penalty=request.frequency_penalty,
            presence_penalty=request.presence_penalty,
            logit_bias=request.logit_bias or None,
            top_logprobs=top_logprobs,
            echo=request.echo,
        )


class TextCompletions:
    """The endpoint. `fingerprints` has the system fingerprint of each model's deployment."""

    def __init__(
        self,
        pipeline: Pipeline,
        idempotency: Idempotency,
        fingerprints: Mapping[str, str],
        settings: GatewaySettings,
    ) -> None:
        self._pipeline = pipeline
        self._idempotency = idempotency
        self._fingerprints = fingerprints
        self._settings = settings

    async def __call__(self, call: Call) -> None:
        body = await call.body(self._settings.max_body_bytes)
        text = await parsed(parse_text, body)
        fingerprint = await digest(call, body)
        # Token ids take much room as text.
        del body
        await self._idempotency.answer(call, fingerprint, partial(self._answer, call, text))

    async def _answer(self, call: Call, text: TextRequest) -> None:
        runs = self._start(call, text)
        call.run = runs[0]
        merged = MergedRuns(runs, self._settings.max_waiting_deltas * len(runs) if text.stream else None)
        with call.aborting(merged):
            if text.stream:
                beat_s = self._settings.keep_alive_comment_s
                await stream(call, merged, lambda _: self._chunks(call, runs, text), beat_s)
                return
            deltas = await merged.outlet.take_all()
            answer = text_object(self._identify(runs), text, deltas, deltas[-1].usage)
            await call.respond(200, msgspec.json.encode(answer))

    def _start(self, call: Call, text: TextRequest) -> list[Run]:
        """Usage is recorded once per id, so every prompt has its own."""
        several = len(text.prompt) > 1
        return [
            self._pipeline.start(
                f"{call.request_id}-{index}" if several else call.request_id,
                call.operation,
                call.caller,
                TextWork(text, prompt),
            )
            for index, prompt in enumerate(text.prompt)
        ]

    def _chunks(self, call: Call, runs: Sequence[Run], text: TextRequest) -> TextChunks:
        # A later prompt may be the first to give something, and the headers need a run that was admitted.
        call.run = next(run for run in runs if run.reservation is not None)
        return TextChunks(self._identify(runs), text)

    def _identify(self, runs: Sequence[Run]) -> Identity:
        model = next(run.model for run in runs if run.model)
        fingerprint = self._fingerprints.get(model, "")
        return Identity(f"cmpl-{os.urandom(12).hex()}", int(time.time()), model, fingerprint)

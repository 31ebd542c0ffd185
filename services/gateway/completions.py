"""A run as OpenAI's `chat.completion` object, and what a streamed one has in common with it."""

import os
import time
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from modelplane.chat_inference.v1.chat_inference_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    Delta,
    TokenLogprob,
)
from modelplane.usage.v1.usage_pb2 import Usage
from services.gateway.outputs.answers import Answers
from services.gateway.requests.chat import ChatRequest
from services.gateway.runs import Run

FINISH_REASONS: Mapping[int, str] = {FINISH_REASON_STOP: "stop", FINISH_REASON_LENGTH: "length"}


Fields = dict[str, Any]


class Identity(msgspec.Struct, frozen=True):
    """What the object and every chunk of one completion repeat."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    service_tier: str = "default"
    """The class that served it."""


def new_identity(run: Run, system_fingerprint: str) -> Identity:
    return Identity(
        f"chatcmpl-{os.urandom(12).hex()}", int(time.time()), run.model, system_fingerprint, run.service_tier
    )


def usage_object(usage: Usage) -> dict[str, Any]:
    """OpenAI's CompletionUsage."""
    prompt_details = {"cached_tokens": usage.cached_input_tokens, "audio_tokens": 0}
    if usage.input_image_tokens:
        prompt_details["image_tokens"] = usage.input_image_tokens
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": prompt_details,
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def logprob_objects(tokens: Iterable[TokenLogprob]) -> list[Fields]:
    """OpenAI's ChatCompletionTokenLogprob, of the tokens of one choice."""
    return [
        {**_logprob(token), "top_logprobs": [_logprob(alternative) for alternative in token.top]} for token in tokens
    ]


def _logprob(token: TokenLogprob) -> Fields:
    return {"token": token.token, "logprob": finite(token.logprob), "bytes": list(token.raw)}


def finite(logprob: float) -> float:
    """JSON has no infinity: OpenAI's number for "never" instead."""
    return max(logprob, -9999.0)


class Choice:
    """What the deltas of one choice add up to."""

    __slots__ = ("finish_reason", "logprobs", "texts")

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.logprobs: list[TokenLogprob] = []
        self.finish_reason = "stop"

    def add(self, delta: Delta) -> None:
        self.texts.append(delta.text)
        if delta.logprobs:
            self.logprobs += delta.logprobs
        if delta.finish_reason:
            self.finish_reason = FINISH_REASONS.get(delta.finish_reason, "stop")


def completion_object(
    identity: Identity, chat: ChatRequest, deltas: Iterable[Delta], usage: Usage, answers: Answers | None = None
) -> Fields:
    """OpenAI's CreateChatCompletionResponse, out of all deltas of a run. `answers` where there may be calls."""
    choices = [Choice() for _ in range(chat.n)]
    for delta in deltas:
        choices[delta.index].add(delta)
    return {
        "id": identity.id,
        "object": "chat.completion",
        "created": identity.created,
        "model": identity.model,
        "choices": [_choice_object(index, choice, chat.logprobs, answers) for index, choice in enumerate(choices)],
        "usage": usage_object(usage),
        "service_tier": identity.service_tier,
        "system_fingerprint": identity.system_fingerprint,
    }


def _choice_object(index: int, choice: Choice, logprobs: bool, answers: Answers | None) -> Fields:
    text, finish_reason = "".join(choice.texts), choice.finish_reason
    said: Fields = {"content": text}
    if answers is not None:
        said, finish_reason = answers.message(text, finish_reason)
    return {
        "index": index,
        "message": {"role": "assistant", **said, "refusal": None, "annotations": []},
        "logprobs": {"content": logprob_objects(choice.logprobs), "refusal": None} if logprobs else None,
        "finish_reason": finish_reason,
    }

"""A run as OpenAI's `chat.completion` object, and what a streamed one has in common with it."""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from modelplane.chat_inference.v1.chat_inference_pb2 import FINISH_REASON_LENGTH, FINISH_REASON_STOP, Delta
from modelplane.usage.v1.usage_pb2 import Usage

FINISH_REASONS: Mapping[int, str] = {FINISH_REASON_STOP: "stop", FINISH_REASON_LENGTH: "length"}


class Identity(msgspec.Struct, frozen=True):
    """What the object and every chunk of one completion repeat."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    service_tier: str = "default"


Identify = Callable[[str], Identity]
"""Makes the identity of a completion by a resolved model."""


def new_identity(model: str, system_fingerprint: str) -> Identity:
    return Identity(f"chatcmpl-{os.urandom(12).hex()}", int(time.time()), model, system_fingerprint)


def usage_object(usage: Usage) -> dict[str, Any]:
    """OpenAI's CompletionUsage."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def completion_object(identity: Identity, n: int, deltas: Iterable[Delta], usage: Usage) -> dict[str, Any]:
    """OpenAI's CreateChatCompletionResponse, out of all deltas of a run with `n` choices."""
    texts: list[list[str]] = [[] for _ in range(n)]
    reasons = ["stop"] * n
    for delta in deltas:
        texts[delta.index].append(delta.text)
        if delta.finish_reason:
            reasons[delta.index] = FINISH_REASONS.get(delta.finish_reason, "stop")
    return {
        "id": identity.id,
        "object": "chat.completion",
        "created": identity.created,
        "model": identity.model,
        "choices": [
            {
                "index": index,
                "message": {
                    "role": "assistant",
                    "content": "".join(texts[index]),
                    "refusal": None,
                    "annotations": [],
                },
                "logprobs": None,
                "finish_reason": reasons[index],
            }
            for index in range(n)
        ],
        "usage": usage_object(usage),
        "service_tier": identity.service_tier,
        "system_fingerprint": identity.system_fingerprint,
    }

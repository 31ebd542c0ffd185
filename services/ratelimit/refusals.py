"""How a refusal is put into words: OpenAI's, with the bucket that makes the request wait longest."""

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from modelplane.ratelimit.v1.ratelimit_pb2 import BucketState
from services.faults import RateLimited
from services.rate_headers import go_duration, rate_headers
from services.ratelimit.buckets import Level, Need, Short
from services.ratelimit.limits import AUDIO, BATCH, IPM, MEGABYTE, RPD, RPM, TPD, TPM, tightest


class _Words(NamedTuple):
    reason: str
    what: str
    advice: str


_TOKENS_ADVICE: Final = "The input or output tokens must be reduced in order to run successfully."
_WORDS: Final = {
    RPM: _Words("rate_limit_requests", "requests per min (RPM)", ""),
    RPD: _Words("rate_limit_requests", "requests per day (RPD)", ""),
    TPM: _Words("rate_limit_tokens", "tokens per min (TPM)", _TOKENS_ADVICE),
    TPD: _Words("rate_limit_tokens", "tokens per day (TPD)", _TOKENS_ADVICE),
    IPM: _Words(
        "rate_limit_images",
        "images per min (IPM)",
        "The number of images must be reduced in order to run successfully.",
    ),
    AUDIO: _Words(
        "rate_limit_audio",
        "audio megabytes per min",
        "The audio must be shortened in order to run successfully.",
    ),
    BATCH: _Words(
        "rate_limit_batch_tokens",
        "batch input tokens per day",
        "The batch must be made smaller in order to run successfully.",
    ),
}


def refusal(model: str, needs: Sequence[Need], short: Short) -> RateLimited:
    """The fault for a request that does not fit: with the wait, or without one for what can never fit."""
    key, _, requested = needs[short.index]
    level = short.levels[short.index]
    words = _WORDS[key.dimension]
    units = _megabytes if key.dimension == AUDIO else str
    where = f"{model} in {key.scope} {key.owner_id} on {words.what}: Limit {units(level.limit)}"
    headers = rate_headers(_tightest(needs, short, (RPM, RPD)), _tightest(needs, short, (TPM, TPD)))
    if short.wait_ns is None:
        message = f"Request too large for {where}, Requested {units(requested)}. {words.advice}".rstrip()
        return RateLimited("request_too_large", message, headers=headers)
    retry_after_ms = whole_ms(short.wait_ns)
    message = (
        f"Rate limit reached for {where}, Used {units(level.limit - level.remaining)}, "
        f"Requested {units(requested)}. Please try again in {go_duration(retry_after_ms)}."
    )
    return RateLimited(words.reason, message, retry_after_ms=retry_after_ms, headers=headers)


def whole_ms(duration_ns: int) -> int:
    """Rounded up: whoever waits as long as told must find what was promised."""
    return -(-duration_ns // 1_000_000)


def state(level: Level | None) -> dict[str, int]:
    """The fields of a BucketState; none when there is no limit."""
    if level is None:
        return {}
    return {"limit": level.limit, "remaining": level.remaining, "reset_ms": whole_ms(level.until_full_ns)}


def _tightest(needs: Sequence[Need], short: Short, dimensions: Collection[int]) -> BucketState:
    levels = [level for need, level in zip(needs, short.levels, strict=True) if need.key.dimension in dimensions]
    return BucketState(**state(tightest(levels)))


def _megabytes(units: int) -> str:
    return f"{units / MEGABYTE:.3f}".rstrip("0").rstrip(".")

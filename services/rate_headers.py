"""The x-ratelimit-* response headers, the same on a success and on a 429.

Both the limiter, which refuses, and the gateway, which answers, need them; neither may import the other.
Durations are written as Go writes them, because that is what clients of OpenAI's API parse.
"""

from typing import Final

from modelplane.ratelimit.v1 import ratelimit_pb2

_REQUESTS: Final = (b"x-ratelimit-limit-requests", b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests")
_TOKENS: Final = (b"x-ratelimit-limit-tokens", b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-tokens")


def rate_lines(requests: ratelimit_pb2.BucketState, tokens: ratelimit_pb2.BucketState) -> list[tuple[bytes, bytes]]:
    """Three headers for each kind, as an answer's head has them. A kind that is not limited has none.

    `reset` is the time until the bucket is full again, not until the next request fits.
    """
    lines: list[tuple[bytes, bytes]] = []
    for (limit_name, remaining_name, reset_name), state in ((_REQUESTS, requests), (_TOKENS, tokens)):
        if limit := state.limit:
            lines.append((limit_name, b"%d" % limit))
            lines.append((remaining_name, b"%d" % state.remaining))
            lines.append((reset_name, go_duration(state.reset_ms).encode()))
    return lines


def rate_headers(requests: ratelimit_pb2.BucketState, tokens: ratelimit_pb2.BucketState) -> dict[str, str]:
    """The same by name, as a fault has them."""
    return {name.decode(): value.decode() for name, value in rate_lines(requests, tokens)}


def go_duration(duration_ms: int) -> str:
    """A duration of whole milliseconds as Go prints it: "0s", "17ms", "1.5s", "6m0s", "1h0m0.02s"."""
    if 0 < duration_ms < 1000:
        return f"{duration_ms}ms"
    seconds, milliseconds = divmod(duration_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{milliseconds:03d}".rstrip("0") if milliseconds else ""
    text = f"{seconds}{fraction}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text

"""The x-ratelimit-* response headers, the same on a success and on a 429.

Both the limiter, which refuses, and the gateway, which answers, need them; neither may import the other.
Durations are written as Go writes them, because that is what clients of OpenAI's API parse.
"""

from modelplane.ratelimit.v1 import ratelimit_pb2


def rate_headers(requests: ratelimit_pb2.BucketState, tokens: ratelimit_pb2.BucketState) -> dict[str, str]:
    """Three headers for each kind. A kind that is not limited has none.

    `reset` is the time until the bucket is full again, not until the next request fits.
    """
    headers: dict[str, str] = {}
    for kind, state in (("requests", requests), ("tokens", tokens)):
        if limit := state.limit:
            headers[f"x-ratelimit-limit-{kind}"] = str(limit)
            headers[f"x-ratelimit-remaining-{kind}"] = str(state.remaining)
            headers[f"x-ratelimit-reset-{kind}"] = go_duration(state.reset_ms)
    return headers


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

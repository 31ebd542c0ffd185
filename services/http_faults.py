"""How a fault looks over HTTP: OpenAI's error body, the status, and the headers that steer a client's retries."""

import msgspec

from services.faults import Fault

Headers = list[tuple[bytes, bytes]]


def error_body(fault: Fault) -> bytes:
    """`{"error": {…}}` with all four keys, as a response's body or as an event of a stream."""
    rule = fault.rule
    error = {"message": fault.message, "type": rule.type, "param": fault.param, "code": rule.code}
    return msgspec.json.encode({"error": error})


def error_headers(fault: Fault) -> Headers:
    """The fault's own headers, how long to wait, and whether a retry can help at all."""
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fault.headers.items()]
    if not fault.rule.retryable:
        headers.append((b"x-should-retry", b"false"))
    elif fault.retry_after_ms > 0:
        # Whole seconds, rounded up, for clients that know only the standard header.
        headers.append((b"retry-after", b"%d" % -(-fault.retry_after_ms // 1000)))
        headers.append((b"retry-after-ms", b"%d" % fault.retry_after_ms))
    return headers

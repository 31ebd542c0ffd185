"""What belongs to the call that is being served: its request id and its deadline.

Context variables carry both through every step in one process; `services/rpc` puts them into metadata when a
call leaves the process and takes them out where it arrives. Trace context travels beside them, in
OpenTelemetry's own variables.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_request_id: ContextVar[str] = ContextVar("request_id", default="")
# A point of time.monotonic(), in seconds.
_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


def request_id() -> str:
    """The id of the request being served, or "" outside any."""
    return _request_id.get()


def remaining_s() -> float | None:
    """Seconds until the call's deadline (0 when it has passed), or None when it has none."""
    deadline = _deadline.get()
    return None if deadline is None else max(0.0, deadline - time.monotonic())


@contextmanager
def call(request_id: str, timeout_s: float | None = None) -> Iterator[None]:
    """Serves one request: its id, and its deadline `timeout_s` from now, hold within the block."""
    id_token = _request_id.set(request_id)
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    deadline_token = _deadline.set(deadline)
    try:
        yield
    finally:
        _deadline.reset(deadline_token)
        _request_id.reset(id_token)

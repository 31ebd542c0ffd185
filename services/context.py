"""What belongs to the call that is being served: its request id and its deadline.

Context variables carry both through every step in one process; `services/rpc` puts them into metadata when a
call leaves the process and takes them out where it arrives. Trace context travels beside them, in
OpenTelemetry's own variables.
"""

import time
from contextvars import ContextVar, Token

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


class call:  # noqa: N801 - used as `with context.call(...)`
    """Serves one request: its id, and its deadline `timeout_s` from now, hold within the block."""

    # A class, because it is entered several times a request and a generator costs three times as much.
    __slots__ = ("_deadline", "_request_id", "_tokens")

    def __init__(self, request_id: str, timeout_s: float | None = None) -> None:
        self._request_id = request_id
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s

    def __enter__(self) -> None:
        self._tokens: tuple[Token[str], Token[float | None]] = (
            _request_id.set(self._request_id),
            _deadline.set(self._deadline),
        )

    def __exit__(self, *_: object) -> None:
        _request_id.reset(self._tokens[0])
        _deadline.reset(self._tokens[1])

"""`Idempotency-Key`: a request that is repeated with the same key gets the first one's answer, byte for byte.

Keeps true: of requests with one key at most one runs at a time, and an answer is kept before its client has all of it,
so that whoever did not get it can ask again. Only complete answers are kept; after anything else, and when the client
hung up, the key is free again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import Final

from modelplane.completions.v1.completions_api import CompletionsService
from modelplane.completions.v1.completions_pb2 import (
    CLAIM_STATE_DONE,
    CLAIM_STATE_MISMATCH,
    CLAIM_STATE_RUNNING,
    AbandonRequest,
    Answer,
    ClaimRequest,
    FinishRequest,
)
from services import telemetry
from services.faults import Conflict, Fault, InvalidRequest
from services.gateway.calls import EVENTS, Call, Message, Send
from services.gateway.settings import GatewaySettings

HEADER: Final = b"idempotency-key"
NAME: Final = "Idempotency-Key"
MOST_CHARACTERS = 255
RETRY_AFTER_MS = 1000
# Beyond the time that a request may take: for settling, and for keeping the answer.
LEASE_MARGIN_S = 60.0
# Bodies up to this size are digested in well under a millisecond.
INLINE_BYTES = 256 * 1024

log = telemetry.logger(__name__)


class Idempotency:
    """Has an endpoint answer once for each key."""

    def __init__(self, completions: CompletionsService, settings: GatewaySettings) -> None:
        self._completions = completions
        self._max_bytes = settings.max_replay_bytes
        self._lease_ms = int((settings.request_timeout_s + settings.settle_timeout_s + LEASE_MARGIN_S) * 1000)

    async def answer(self, call: Call, fingerprint: bytes | None, endpoint: Callable[[], Awaitable[None]]) -> None:
        """Answers an authenticated call: with `endpoint`, or with what the first request with its key got.

        `fingerprint` is its `digest`. Raises InvalidRequest for a key that is too long
        or was used with another request, and Conflict while the first request with it is still being served.
        """
        if fingerprint is None:
            await endpoint()
            return
        key = call.header(HEADER)
        if len(key) > MOST_CHARACTERS:
            raise InvalidRequest(
                "string_above_max_length",
                f"Invalid '{NAME}': string too long. Expected a string with maximum length {MOST_CHARACTERS}, but got "
                f"a string with length {len(key)} instead.",
                param=NAME,
            )
        claimed = await self._completions.claim(
            ClaimRequest(project_id=call.caller.project_id, key=key, fingerprint=fingerprint, lease_ms=self._lease_ms)
        )
        if claimed.state == CLAIM_STATE_DONE:
            await _replay(call, claimed.answer)
            return
        if claimed.state == CLAIM_STATE_RUNNING:
            raise Conflict(
                "idempotency_key_in_use",
                f"The first request with this '{NAME}' is still being served. Try again in a moment.",
                param=NAME,
                retry_after_ms=RETRY_AFTER_MS,
            )
        if claimed.state == CLAIM_STATE_MISMATCH:
            raise InvalidRequest(
                "idempotency_key_reused",
                f"This '{NAME}' was used with another request. Use a new key for a new request.",
                param=NAME,
            )
        claim = _Claim(self._completions, call, claimed.token, self._max_bytes)
        call.tap(claim.between)
        try:
            await endpoint()
        finally:
            await claim.end()


async def digest(call: Call, body: bytes) -> bytes | None:
    """The fingerprint of a request that has a key: where it goes and what it says. None for one that has none."""
    if not call.header(HEADER):
        return None
    if len(body) <= INLINE_BYTES:
        return _digest(call.path, body)
    return await asyncio.to_thread(_digest, call.path, body)


def _digest(path: str, body: bytes) -> bytes:
    return blake2b(path.encode() + b"\0" + body, digest_size=32).digest()


async def _replay(call: Call, answer: Answer) -> None:
    content_type = answer.content_type.encode()
    headers = [(b"idempotent-replayed", b"true")]
    if content_type == EVENTS[1]:
        headers.append((b"cache-control", b"no-cache"))
    await call.respond(answer.status, answer.body, headers, (b"content-type", content_type))


class _Claim:
    """Of one request that runs: records what is sent, and keeps it or gives the key back."""

    def __init__(self, completions: CompletionsService, call: Call, token: str, max_bytes: int) -> None:
        self._completions = completions
        self._call = call
        self._token = token
        self._left = max_bytes
        self._content_type = ""
        self._sent: list[bytes] = []
        self._complete = False
        self._ended = False

    def between(self, send: Send) -> Send:
        """What stands between the call and its client."""

        async def record(message: Message) -> None:
            if not self._ended:
                await self._take(message)
            await send(message)

        return record

    async def end(self) -> None:
        """Keeps the answer where it is complete, and else gives the key back. Only the first time."""
        if self._ended:
            return
        self._ended = True
        whole = self._complete and self._call.status == 200 and self._call.fault is None and self._left >= 0
        if whole and await self._finish():
            return
        try:
            await self._completions.abandon(AbandonRequest(token=self._token))
        except Fault as fault:
            log.warning("an idempotency key is taken until its lease ends", reason=fault.reason)

    async def _take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._content_type = dict(message["headers"])[b"content-type"].decode()
            return
        body = message["body"]
        self._left -= len(body)
        if self._left >= 0:
            self._sent.append(body)
        else:
            self._sent.clear()
        if not message.get("more_body", False):
            self._complete = True
            await self.end()

    async def _finish(self) -> bool:
        answer = Answer(status=200, content_type=self._content_type, body=b"".join(self._sent))
        try:
            await self._completions.finish(FinishRequest(token=self._token, answer=answer))
        except Fault as fault:
            log.error("an answer is not kept for its idempotency key", reason=fault.reason)
            return False
        return True

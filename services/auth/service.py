"""Turns keys into principals.

Keeps true: a known key costs no I/O; a change that the service `keys` pushes acts at once, a revocation for good; no
secret leaves this process, only its digest.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Final

from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse

from modelplane.auth.v1 import auth_pb2
from modelplane.keys.v1 import keys_pb2
from modelplane.keys.v1.keys_api import KeysService
from services import key_format, telemetry
from services.auth import envoy
from services.auth.cache import Expiring, KeyCache, Known
from services.auth.guesses import Budget, Guesses, source
from services.auth.settings import AuthSettings
from services.compose import Context
from services.faults import Fault, Unauthenticated
from services.key_format import KeySettings

_PARTS: Final = 3

log = telemetry.logger(__name__)


class Auth:
    """The contract AuthService. `clock` gives seconds that never go back, `wall` seconds of the epoch."""

    def __init__(
        self,
        keys: KeysService,
        hashing: KeySettings,
        settings: AuthSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._hash_key = hashing.hash_key
        self._settings = settings
        self._wall = wall
        self._cache = KeyCache(
            self._look_up,
            size=settings.cached_keys,
            ttl_s=settings.ttl_s,
            unknown=Expiring(settings.cached_unknown_keys, settings.unknown_ttl_s),
            guesses=Guesses(
                lambda: Budget(settings.unknown_per_s, settings.unknown_burst, clock),
                Budget(settings.all_unknown_per_s, settings.all_unknown_burst, clock),
            ),
            clock=clock,
        )
        # Milliseconds of the epoch by key id, not reported yet.
        self._used_at_ms: dict[str, int] = {}

    async def authenticate(self, request: auth_pb2.AuthenticateRequest, /) -> auth_pb2.AuthenticateResponse:
        """The answer is shared by all callers of this key: read it, do not change it."""
        key = request.key
        if not key:
            raise missing_key()
        digest = key_format.digest(key, self._hash_key)
        found = self._cache.recall(digest)
        if found is None and key_format.parse(key) is not None:
            found = await self._cache.find(digest, source(request.address))
        if found is None:
            raise incorrect_key(key)
        now_ms = int(self._wall() * 1000)
        if found.expires_at_ms and found.expires_at_ms <= now_ms:
            raise Unauthenticated("expired_api_key", f"The API key {key_format.redact(key)} has expired.")
        _check_headers(request, found)
        self._used_at_ms[found.key_id] = now_ms
        return found.answer

    async def check(self, request: CheckRequest, /) -> CheckResponse:
        """What another Envoy asks before it lets a request pass (its ext_authz)."""
        return await envoy.answer(self.authenticate, request)

    async def follow(self) -> None:
        """Forgets what the service `keys` says is old, for ever."""
        broken = False
        while True:
            try:
                async with aclosing(self._keys.watch(keys_pb2.WatchRequest())) as changes:  # type: ignore[type-var]
                    await self._heard(changes)
                    # What happened before the stream was not heard.
                    self._cache.clear()
                    if broken:
                        log.info("changes of keys are heard again")
                    broken = False
                    while True:
                        self._apply(await self._heard(changes))
            except (Fault, TimeoutError, StopAsyncIteration) as error:
                if not broken:
                    log.warning("changes of keys are not heard", error=error)
                broken = True
            await asyncio.sleep(self._settings.patience_s / 4)

    async def keep_touching(self) -> None:
        """Reports when keys were last used, for ever."""
        while True:
            await asyncio.sleep(self._settings.touch_interval_s)
            await self.touch()

    async def touch(self) -> None:
        """Reports it now."""
        used, self._used_at_ms = self._used_at_ms, {}
        if not used:
            return
        try:
            await self._keys.touch(keys_pb2.TouchRequest(used_at_ms=used))
        except Fault as fault:
            log.debug("last use of keys not reported", reason=fault.reason, count=len(used))
            if len(used) + len(self._used_at_ms) <= self._settings.cached_keys:
                self._used_at_ms = used | self._used_at_ms

    async def _heard(self, changes: AsyncIterator[keys_pb2.WatchResponse]) -> keys_pb2.WatchResponse:
        """The next change or beat. Raises TimeoutError when none comes in time."""
        next_one = asyncio.ensure_future(anext(changes))
        try:
            # In parts: after a stall of this process what came meanwhile waits to be read, and it was us who slept.
            for _ in range(_PARTS):
                await asyncio.wait((next_one,), timeout=self._settings.patience_s / _PARTS)
                if next_one.done():
                    return next_one.result()
            raise TimeoutError(f"no sign of life for {self._settings.patience_s:g} s")
        finally:
            next_one.cancel()
            await asyncio.wait((next_one,))

    def _apply(self, change: keys_pb2.WatchResponse) -> None:
        if change.all:
            self._cache.clear()
        if change.revoked:
            self._cache.revoke(change.organization_id, change.project_id, change.key_id)
            return
        for name in (change.organization_id, change.project_id, change.key_id):
            if name:
                self._cache.forget(name)

    async def _look_up(self, digest: bytes) -> auth_pb2.Principal | None:
        resolved = await self._keys.resolve(keys_pb2.ResolveRequest(digest=digest))
        return resolved.principal if resolved.HasField("principal") else None


def _check_headers(request: auth_pb2.AuthenticateRequest, found: Known) -> None:
    if request.organization and request.organization != found.organization_id:
        raise Unauthenticated(
            "mismatched_organization", "OpenAI-Organization header should match organization for API key"
        )
    if request.project and request.project != found.project_id:
        raise Unauthenticated("mismatched_project", "OpenAI-Project header should match project for API key")


def missing_key() -> Unauthenticated:
    return Unauthenticated(
        "missing_api_key",
        "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer "
        "auth (i.e. Authorization: Bearer YOUR_KEY).",
    )


def incorrect_key(key: str) -> Unauthenticated:
    return Unauthenticated(
        "invalid_api_key",
        f"Incorrect API key provided: {key_format.redact(key)}. It is mistyped, was revoked, or belongs to another "
        "platform.",
    )


@asynccontextmanager
async def serving(auth: Auth) -> AsyncIterator[Auth]:
    """The service, kept in step with what changes; its last uses are reported before it ends."""
    tasks = [
        asyncio.create_task(auth.follow(), name="auth changes"),
        asyncio.create_task(auth.keep_touching(), name="auth last uses"),
    ]
    try:
        yield auth
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        with suppress(Fault):
            await auth.touch()


@asynccontextmanager
async def build(context: Context) -> AsyncIterator[Auth]:
    auth = Auth(context.need(KeysService), context.settings(KeySettings), context.settings(AuthSettings))
    async with serving(auth):
        yield auth

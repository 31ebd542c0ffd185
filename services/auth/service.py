"""Turns keys into principals, and makes and revokes keys.

Keeps true: secrets appear in the answer that makes them and nowhere else; a known key costs no I/O; a revoked
key is refused by this process when `revoke_key` returns, and by the others as soon as PostgreSQL has told them.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from hashlib import blake2b
from typing import Final

from modelplane.auth.v1 import auth_pb2
from services import telemetry
from services.auth import keys
from services.auth.cache import Expiring, KeyCache
from services.auth.settings import Settings
from services.auth.store import KeyRow, Store
from services.compose import Context
from services.faults import NotFound, Unauthenticated

log = telemetry.logger(__name__)

KINDS: Final = {"project": auth_pb2.KEY_KIND_PROJECT, "admin": auth_pb2.KEY_KIND_ADMIN}
NAMES: Final = {kind: name for name, kind in KINDS.items()}


class Auth:
    """The contract AuthService."""

    def __init__(self, store: Store, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        # Of any length as configured; the keyed hash takes 64 bytes.
        self._pepper = blake2b(settings.pepper.encode()).digest()
        self._cache = KeyCache(
            self._look_up,
            known=Expiring(settings.cached_keys, settings.ttl_s),
            unknown=Expiring(settings.cached_unknown_keys, settings.unknown_ttl_s),
            clock=clock,
        )

    async def authenticate(self, request: auth_pb2.AuthenticateRequest, /) -> auth_pb2.AuthenticateResponse:
        """The answer is shared by all callers of this key: read it, do not change it."""
        key = request.key
        if not key:
            raise missing_key()
        digest = keys.digest(key, self._pepper)
        answer = self._cache.recall(digest)
        if answer is None and keys.parse(key) is not None:
            answer = await self._cache.find(digest)
        if answer is None:
            raise incorrect_key(key)
        principal = answer.principal
        if request.organization and request.organization != principal.organization_id:
            raise Unauthenticated(
                "mismatched_organization", "OpenAI-Organization header should match organization for API key"
            )
        if request.project and request.project != principal.project_id:
            raise Unauthenticated("mismatched_project", "OpenAI-Project header should match project for API key")
        return answer

    async def bootstrap(self, request: auth_pb2.BootstrapRequest, /) -> auth_pb2.BootstrapResponse:
        organization_id, project_id = new_id("org-"), new_id("proj_")
        api_key, api_row = self._new_key(auth_pb2.KEY_KIND_PROJECT, organization_id, project_id, "Default key")
        admin_key, admin_row = self._new_key(auth_pb2.KEY_KIND_ADMIN, organization_id, None, "Default admin key")
        first = await self._store.bootstrap(organization_id, project_id, [api_row, admin_row])
        if first is not None:
            return auth_pb2.BootstrapResponse(created=False, organization_id=first[0], project_id=first[1])
        log.info("first organisation made", organization_id=organization_id, project_id=project_id)
        return auth_pb2.BootstrapResponse(
            created=True,
            organization_id=organization_id,
            project_id=project_id,
            api_key=api_key,
            admin_key=admin_key,
        )

    async def create_key(self, request: auth_pb2.CreateKeyRequest, /) -> auth_pb2.CreateKeyResponse:
        secret, row = self._new_key(
            auth_pb2.KEY_KIND_PROJECT, request.organization_id, request.project_id, request.name
        )
        if not await self._store.add_key(row):
            raise NotFound("project_not_found", f"No such project: '{request.project_id}'.", param="project_id")
        log.info("key made", key_id=row.id, project_id=row.project_id)
        return auth_pb2.CreateKeyResponse(key_id=row.id, secret=secret, redacted=row.redacted)

    async def revoke_key(self, request: auth_pb2.RevokeKeyRequest, /) -> auth_pb2.RevokeKeyResponse:
        digest = await self._store.revoke_key(request.organization_id, request.key_id)
        if digest is None:
            raise NotFound("key_not_found", f"No such API key: '{request.key_id}'.", param="key_id")
        self._cache.forget(digest)
        log.info("key revoked", key_id=request.key_id)
        return auth_pb2.RevokeKeyResponse()

    async def follow(self, revocations: AsyncIterator[bytes | None]) -> None:
        """Forgets the keys that any process revokes, and all of them after a None."""
        async for digest in revocations:
            if digest is None:
                self._cache.clear()
            else:
                self._cache.forget(digest)

    def _new_key(
        self, kind: auth_pb2.KeyKind, organization_id: str, project_id: str | None, name: str
    ) -> tuple[str, KeyRow]:
        secret = keys.generate(kind, secrets.token_bytes(keys.RANDOM_BYTES))
        digest = keys.digest(secret, self._pepper)
        return secret, KeyRow(
            id=new_id("key_"),
            organization_id=organization_id,
            project_id=project_id,
            kind=NAMES[kind],
            name=name,
            hash=digest,
            redacted=keys.redact(secret),
        )

    async def _look_up(self, digest: bytes) -> auth_pb2.AuthenticateResponse | None:
        owner = await self._store.owner(digest)
        if owner is None:
            return None
        return auth_pb2.AuthenticateResponse(
            principal=auth_pb2.Principal(
                organization_id=owner.organization_id,
                project_id=owner.project_id or "",
                key_id=owner.key_id,
                kind=KINDS[owner.kind],
            )
        )


def new_id(prefix: str) -> str:
    return keys.identifier(prefix, secrets.token_bytes(keys.ID_BYTES))


def missing_key() -> Unauthenticated:
    return Unauthenticated(
        "missing_api_key",
        "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer "
        "auth (i.e. Authorization: Bearer YOUR_KEY).",
    )


def incorrect_key(key: str) -> Unauthenticated:
    return Unauthenticated(
        "invalid_api_key",
        f"Incorrect API key provided: {keys.redact(key)}. It is mistyped, was revoked, or belongs to another platform.",
    )


@asynccontextmanager
async def serving(store: Store, settings: Settings) -> AsyncIterator[Auth]:
    """The service, kept in step with what other processes revoke."""
    auth = Auth(store, settings)
    async with aclosing(store.revocations()) as revocations:
        await anext(revocations)  # it listens before the first key is remembered
        following = asyncio.create_task(auth.follow(revocations), name="auth revocations")
        try:
            yield auth
        finally:
            following.cancel()
            await asyncio.wait([following])


@asynccontextmanager
async def build(context: Context) -> AsyncIterator[Auth]:
    async with serving(Store(context.database()), context.settings(Settings)) as auth:
        yield auth

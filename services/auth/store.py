"""The queries of organisations, projects and keys. Keys come and go as digests; no secret reaches this module.

Keeps true: a revocation is told to every process by the transaction that makes it.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple

from psycopg import AsyncConnection

from services.storage import Database

CHANNEL = "auth_revoked_keys"
BOOTSTRAP_LOCK = 0x61757468  # "auth"; any number that nothing else locks


class KeyRow(NamedTuple):
    """A key as it is stored; `project_id` is None for an admin key."""

    id: str
    organization_id: str
    project_id: str | None
    kind: str
    name: str
    hash: bytes
    redacted: str


class Owner(NamedTuple):
    """Whom a live key acts for; `project_id` is None for an admin key."""

    key_id: str
    organization_id: str
    project_id: str | None
    kind: str


class Store:
    """What the service asks of the database. Every method may raise database_unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def owner(self, digest: bytes) -> Owner | None:
        """Whom the key acts for, or None when there is no such key or it was revoked."""
        async with self._database.connection() as connection:
            found = await connection.execute(
                "SELECT id, organization_id, project_id, kind FROM api_keys WHERE hash = %s AND revoked_at IS NULL",
                (digest,),
            )
            row = await found.fetchone()
        return None if row is None else Owner(*row)

    async def bootstrap(self, organization_id: str, project_id: str, keys: list[KeyRow]) -> tuple[str, str] | None:
        """Adds the first organisation with its project and keys; when there is one, gives the oldest's ids instead."""
        async with self._database.connection() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (BOOTSTRAP_LOCK,))
            found = await connection.execute("SELECT organization_id, id FROM projects ORDER BY created_at, id LIMIT 1")
            if (first := await found.fetchone()) is not None:
                return first[0], first[1]
            await connection.execute(
                "INSERT INTO organizations (id, name) VALUES (%s, %s)", (organization_id, "Default organization")
            )
            await connection.execute(
                "INSERT INTO projects (id, organization_id, name) VALUES (%s, %s, %s)",
                (project_id, organization_id, "Default project"),
            )
            for key in keys:
                await insert(connection, key)
        return None

    async def add_key(self, key: KeyRow) -> bool:
        """False when the organisation has no such project."""
        async with self._database.connection() as connection:
            # The lock keeps the project from going between the look and the insert.
            found = await connection.execute(
                "SELECT 1 FROM projects WHERE organization_id = %s AND id = %s FOR KEY SHARE",
                (key.organization_id, key.project_id),
            )
            if await found.fetchone() is None:
                return False
            await insert(connection, key)
        return True

    async def revoke_key(self, organization_id: str, key_id: str) -> bytes | None:
        """The digest of the key that is now revoked, or was before; None when there is no such key."""
        async with self._database.connection() as connection:
            revoked = await connection.execute(
                "UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) "
                "WHERE organization_id = %s AND id = %s RETURNING hash",
                (organization_id, key_id),
            )
            row = await revoked.fetchone()
            if row is None:
                return None
            digest = bytes(row[0])
            await connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, digest.hex()))
        return digest

    async def revocations(self) -> AsyncGenerator[bytes | None, None]:
        """Digests of keys as they are revoked; None when some may have been missed. Ends when closed."""
        async with aclosing(self._database.listen(CHANNEL)) as payloads:
            async for payload in payloads:
                yield None if payload is None else bytes.fromhex(payload)


async def insert(connection: AsyncConnection, key: KeyRow) -> None:
    await connection.execute(
        "INSERT INTO api_keys (id, organization_id, project_id, kind, name, hash, redacted) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s)",
        key,
    )

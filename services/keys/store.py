"""The queries of keys and service accounts. Keys come and go as digests; no secret reaches this module.

Keeps true: a change and its audit event are one transaction; what belongs to another organisation is not there. Who is
told of a change is not said here: triggers on the tables do that.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, LiteralString, NamedTuple

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from modelplane.admin.v1.admin_pb2 import Actor, Page
from modelplane.auth.v1 import auth_pb2
from modelplane.keys.v1.keys_pb2 import (
    OWNER_ACCESS_ACTIVE,
    OWNER_ACCESS_INACTIVE,
    OWNER_ACCESS_UNSPECIFIED,
    Key,
    OwnerAccess,
    ServiceAccount,
)
from modelplane.limits.v1.limits_pb2 import SCOPE_ORGANIZATION, SCOPE_PROJECT, Override
from services.storage import Database
from services.storage.audit import audit
from services.storage.pages import Listing, page

CHANNEL: Final = "principals"
KINDS: Final[Mapping[str, auth_pb2.KeyKind]] = {
    "project": auth_pb2.KEY_KIND_PROJECT,
    "admin": auth_pb2.KEY_KIND_ADMIN,
    "service_account": auth_pb2.KEY_KIND_SERVICE_ACCOUNT,
}
NAMES: Final[Mapping[auth_pb2.KeyKind, str]] = {kind: name for name, kind in KINDS.items()}

# All that a principal says, in one statement, so that its parts are of one moment. A key whose owner is gone, or whose
# project is archived, is not found; nor is the admin key of somebody who owns the organisation no more.
_PRINCIPAL = """
SELECT k.id, k.organization_id, coalesce(k.project_id, ''), k.kind, coalesce(k.user_id, k.service_account_id, ''),
    k.access, k.scopes, floor(extract(epoch FROM k.expires_at) * 1000)::bigint, o.usage_tier,
    coalesce(p.models_mode, 0), p.models, p.ip_ranges, p.weight,
    (SELECT jsonb_agg(jsonb_build_array(l.project_id <> '', l.model, l.dimension, l.units)) FROM limit_overrides l
        WHERE l.organization_id = k.organization_id AND l.project_id IN ('', coalesce(k.project_id, '')))
FROM api_keys k
JOIN organizations o ON o.id = k.organization_id
LEFT JOIN projects p ON p.id = k.project_id
LEFT JOIN service_accounts s ON s.id = k.service_account_id
WHERE k.hash = %s AND k.revoked_at IS NULL AND p.archived_at IS NULL AND s.deleted_at IS NULL
    AND (k.user_id IS NULL OR CASE WHEN k.project_id IS NULL
        THEN EXISTS (SELECT 1 FROM organization_members m
            WHERE m.organization_id = k.organization_id AND m.user_id = k.user_id AND m.role = 'owner')
        ELSE EXISTS (SELECT 1 FROM project_members m WHERE m.project_id = k.project_id AND m.user_id = k.user_id) END)
"""
_OWNER_ROLE: Final[LiteralString] = """
coalesce(CASE WHEN k.user_id IS NULL THEN s.role WHEN k.project_id IS NULL THEN om.role ELSE pm.role END, '')
"""
_OWNER_ACTIVE: Final[LiteralString] = f"(coalesce(k.user_id, k.service_account_id) IS NULL OR {_OWNER_ROLE} <> '')"
_KEY_COLUMNS: Final[LiteralString] = f"""
k.id, k.organization_id, coalesce(k.project_id, ''), k.kind, k.name, k.redacted,
coalesce(k.user_id, k.service_account_id, ''), coalesce(u.name, s.name, ''), coalesce(u.email, ''),
{_OWNER_ROLE},
extract(epoch FROM coalesce(u.created_at, s.created_at))::bigint, k.access, k.scopes,
extract(epoch FROM k.created_at)::bigint, extract(epoch FROM k.last_used_at)::bigint,
extract(epoch FROM k.expires_at)::bigint
"""
_KEY_TABLE: Final[LiteralString] = """
api_keys k LEFT JOIN users u ON u.id = k.user_id LEFT JOIN service_accounts s ON s.id = k.service_account_id
LEFT JOIN organization_members om ON om.organization_id = k.organization_id AND om.user_id = k.user_id
LEFT JOIN project_members pm ON pm.project_id = k.project_id AND pm.user_id = k.user_id
"""
_OF_PROJECT: Final[LiteralString] = "k.organization_id = %(organization_id)s AND k.project_id = %(project_id)s"
_OF_ORGANIZATION: Final[LiteralString] = "k.organization_id = %(organization_id)s AND k.project_id IS NULL"
_NOT_REVOKED: Final[Sequence[LiteralString]] = ("k.revoked_at IS NULL",)
_OF_OWNERS: Final[Mapping[OwnerAccess, Sequence[LiteralString]]] = {
    OWNER_ACCESS_UNSPECIFIED: (),
    OWNER_ACCESS_ACTIVE: (_OWNER_ACTIVE,),
    OWNER_ACCESS_INACTIVE: (f"NOT {_OWNER_ACTIVE}",),
}
_ACCOUNT_COLUMNS: Final[LiteralString] = (
    "id, organization_id, project_id, name, role, extract(epoch FROM created_at)::bigint"
)
_ACCOUNT_CONDITIONS: Final[Sequence[LiteralString]] = (
    "organization_id = %(organization_id)s",
    "project_id = %(project_id)s",
)


class NewKey(NamedTuple):
    """A key to be stored. `project_id` and `owner_id` are "" for none; `expires_at` is in Unix seconds, 0 for never."""

    id: str
    organization_id: str
    project_id: str
    kind: auth_pb2.KeyKind
    name: str
    digest: bytes
    redacted: str
    owner_id: str
    access: auth_pb2.Access
    scopes: Sequence[str]
    expires_at: int


class Records:
    """Keys and service accounts as one transaction sees them."""

    def __init__(self, connection: AsyncConnection[TupleRow]) -> None:
        self._connection = connection

    async def project_archived(self, organization_id: str, project_id: str, *, hold: bool = False) -> bool | None:
        """None when there is no such project; with `hold`, it cannot be archived until the transaction ends."""
        query: LiteralString = "SELECT archived_at IS NOT NULL FROM projects WHERE organization_id = %s AND id = %s"
        row = await self._row(query + " FOR SHARE" if hold else query, (organization_id, project_id))
        return None if row is None else row[0]

    async def has_organization(self, organization_id: str) -> bool:
        return await self._row("SELECT 1 FROM organizations WHERE id = %s", (organization_id,)) is not None

    async def role(self, organization_id: str, project_id: str, user_id: str) -> str | None:
        """In the project or, when it is "", in the organisation; None for somebody who is not in it. It stays so until
        the transaction ends."""
        if project_id:
            row = await self._row(
                "SELECT role FROM project_members WHERE organization_id = %s AND project_id = %s AND user_id = %s "
                "FOR SHARE",
                (organization_id, project_id, user_id),
            )
        else:
            row = await self._row(
                "SELECT role FROM organization_members WHERE organization_id = %s AND user_id = %s FOR SHARE",
                (organization_id, user_id),
            )
        return None if row is None else row[0]

    async def add_key(self, key: NewKey) -> None:
        """Whoever it belongs to must have been seen by this transaction."""
        by_account = key.kind == auth_pb2.KEY_KIND_SERVICE_ACCOUNT
        await self._connection.execute(
            "INSERT INTO api_keys (id, organization_id, project_id, kind, name, hash, redacted, user_id, "
            "service_account_id, access, scopes, expires_at) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, to_timestamp(%s))",
            (
                key.id,
                key.organization_id,
                key.project_id or None,
                NAMES[key.kind],
                key.name,
                key.digest,
                key.redacted,
                None if by_account else key.owner_id or None,
                key.owner_id if by_account else None,
                key.access,
                list(key.scopes),
                key.expires_at or None,
            ),
        )

    async def key(self, organization_id: str, project_id: str, key_id: str) -> Key | None:
        listing = _keys_of(project_id, "k.id = %(id)s")
        values = {"organization_id": organization_id, "project_id": project_id, "id": key_id}
        rows, _ = await page(self._connection, listing, values, Page(limit=1))
        return _key(rows[0]) if rows else None

    async def keys(
        self, organization_id: str, project_id: str, asked: Page, owner_access: OwnerAccess
    ) -> tuple[list[Key], bool]:
        values = {"organization_id": organization_id, "project_id": project_id}
        listing = _keys_of(project_id)
        listing = listing._replace(live=(*listing.live, *_OF_OWNERS[owner_access]))
        rows, has_more = await page(self._connection, listing, values, asked)
        return [_key(row) for row in rows], has_more

    async def revoke_key(self, organization_id: str, key_id: str) -> tuple[str, auth_pb2.KeyKind, bool] | None:
        """The key's project ("" for none), its kind, and whether it was valid until now; None when there is no such
        key."""
        row = await self._row(
            "SELECT coalesce(project_id, ''), kind, revoked_at IS NULL FROM api_keys "
            "WHERE organization_id = %s AND id = %s FOR NO KEY UPDATE",
            (organization_id, key_id),
        )
        if row is None:
            return None
        project_id, kind, was_valid = row
        if was_valid:
            await self._connection.execute("UPDATE api_keys SET revoked_at = now() WHERE id = %s", (key_id,))
        return project_id, KINDS[kind], was_valid

    async def add_account(self, account: ServiceAccount) -> None:
        """To a project that this transaction has seen."""
        await self._connection.execute(
            "INSERT INTO service_accounts (id, organization_id, project_id, name, role, created_at) "
            "VALUES (%s, %s, %s, %s, %s, to_timestamp(%s))",
            (
                account.id,
                account.organization_id,
                account.project_id,
                account.name,
                account.role,
                account.created_at,
            ),
        )

    async def account(
        self, organization_id: str, project_id: str, account_id: str, *, locked: bool = False
    ) -> ServiceAccount | None:
        """A live one. Locked, it stays as it is until the transaction ends."""
        row = await self._row(
            f"SELECT {_ACCOUNT_COLUMNS} FROM service_accounts WHERE organization_id = %s AND project_id = %s "  # noqa: S608
            f"AND id = %s AND deleted_at IS NULL {'FOR NO KEY UPDATE' if locked else ''}",
            (organization_id, project_id, account_id),
        )
        return None if row is None else _account(row)

    async def accounts(self, organization_id: str, project_id: str, asked: Page) -> tuple[list[ServiceAccount], bool]:
        listing = Listing(_ACCOUNT_COLUMNS, "service_accounts", _ACCOUNT_CONDITIONS, live=["deleted_at IS NULL"])
        values = {"organization_id": organization_id, "project_id": project_id}
        rows, has_more = await page(self._connection, listing, values, asked)
        return [_account(row) for row in rows], has_more

    async def change_account(self, account: ServiceAccount) -> None:
        await self._connection.execute(
            "UPDATE service_accounts SET name = %s, role = %s WHERE id = %s", (account.name, account.role, account.id)
        )

    async def delete_account(self, account: ServiceAccount) -> list[str]:
        """Deletes it and revokes its keys; gives their ids. In their order, as `touch` takes them, so that neither
        waits for the other."""
        await self._connection.execute("UPDATE service_accounts SET deleted_at = now() WHERE id = %s", (account.id,))
        revoked = await self._connection.execute(
            "UPDATE api_keys k SET revoked_at = now() FROM (SELECT id FROM api_keys WHERE organization_id = %s "
            "AND project_id = %s AND service_account_id = %s AND revoked_at IS NULL ORDER BY id FOR NO KEY UPDATE) "
            "AS own WHERE k.id = own.id RETURNING k.id",
            (account.organization_id, account.project_id, account.id),
        )
        return [row[0] for row in await revoked.fetchall()]

    async def note(
        self, kind: str, organization_id: str, project_id: str, actor: Actor, subject: str, **details: Mapping[str, Any]
    ) -> None:
        """An event for the audit log. `subject` is the id of the key or the service account."""
        await audit(
            self._connection,
            kind,
            organization_id,
            actor,
            project_id=project_id,
            resource_id=subject,
            details={"id": subject, **details},
        )

    async def _row(self, query: LiteralString, values: Sequence[Any]) -> TupleRow | None:
        return await (await self._connection.execute(query, values)).fetchone()


class KeysStore:
    """What the service asks of the database. Every method may raise database_unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Records]:
        async with self._database.connection() as connection:
            yield Records(connection)

    async def principal(self, digest: bytes) -> auth_pb2.Principal | None:
        """Whom the key acts for; None for one that does not count."""
        async with self._database.connection() as connection:
            row = await (await connection.execute(_PRINCIPAL, (digest,))).fetchone()
        return None if row is None else _principal(row)

    async def touch(self, used_at_ms: Mapping[str, int]) -> None:
        """Notes when keys were last used. In the order of their ids, so that two processes cannot deadlock."""
        async with self._database.connection() as connection:
            await connection.execute(
                "UPDATE api_keys k SET last_used_at = greatest(k.last_used_at, to_timestamp(used.at_ms / 1000.0)) "
                "FROM (SELECT k.id, given.at_ms FROM api_keys k JOIN unnest(%s::text[], %s::bigint[]) "
                "AS given (id, at_ms) USING (id) ORDER BY k.id FOR NO KEY UPDATE OF k) AS used WHERE k.id = used.id",
                (list(used_at_ms), list(used_at_ms.values())),
            )

    async def changes(self) -> AsyncGenerator[tuple[str, str] | None, None]:
        """(what, id) of principals as they become old: `organization`, `project` or `key`. None when some may have been
        missed. Ends when closed."""
        async with aclosing(self._database.listen(CHANNEL)) as payloads:
            async for payload in payloads:
                what, _, id_ = (payload or "").partition(":")
                yield None if payload is None else (what, id_)


def _keys_of(project_id: str, *conditions: LiteralString) -> Listing:
    """Of the project or, when it is "", the admin keys."""
    owner = _OF_PROJECT if project_id else _OF_ORGANIZATION
    return Listing(_KEY_COLUMNS, _KEY_TABLE, (owner, *conditions), "k.created_at", "k.id", _NOT_REVOKED)


def _principal(row: TupleRow) -> auth_pb2.Principal:
    key_id, organization_id, project_id, kind, owner_id, access, scopes, expires_at_ms, tier, *policies = row
    models_mode, models, ip_ranges, weight, overrides = policies
    return auth_pb2.Principal(
        organization_id=organization_id,
        project_id=project_id,
        key_id=key_id,
        kind=KINDS[kind],
        owner_id=owner_id,
        access=access,
        scopes=scopes,
        usage_tier=tier,
        limits=[_override(*override) for override in overrides or ()],
        models=auth_pb2.ModelPolicy(mode=models_mode, models=models or ()) if models_mode else None,
        ip_ranges=ip_ranges or (),
        expires_at_ms=expires_at_ms or 0,
        weight=weight or 0,
    )


def _override(of_project: bool, model: str, dimension: Any, limit: int) -> Override:
    scope = SCOPE_PROJECT if of_project else SCOPE_ORGANIZATION
    return Override(scope=scope, model=model, dimension=dimension, limit=limit)


def _key(row: TupleRow) -> Key:
    id_, organization_id, project_id, kind, name, redacted, *owner, access, scopes, created, used, expires = row
    owner_id, owner_name, owner_email, owner_role, owner_created_at = owner
    return Key(
        id=id_,
        organization_id=organization_id,
        project_id=project_id,
        kind=KINDS[kind],
        name=name,
        redacted=redacted,
        owner_id=owner_id,
        owner_name=owner_name,
        owner_email=owner_email,
        owner_role=owner_role,
        owner_created_at=owner_created_at or 0,
        access=access,
        scopes=scopes,
        created_at=created,
        last_used_at=used or 0,
        expires_at=expires or 0,
    )


def _account(row: TupleRow) -> ServiceAccount:
    id_, organization_id, project_id, name, role, created_at = row
    return ServiceAccount(
        id=id_,
        organization_id=organization_id,
        project_id=project_id,
        name=name,
        role=role,
        created_at=created_at,
    )

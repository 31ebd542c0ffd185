"""Makes, shows and revokes keys, and says whom they act for.

Keeps true: a secret is in the answer that makes it and nowhere else; every change is in the audit log or did not
happen; whoever watches is told of a change when it is made, and of a revocation also while the database is away.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

from modelplane.admin.v1.admin_pb2 import Actor
from modelplane.auth.v1 import auth_pb2
from modelplane.keys.v1 import keys_pb2 as pb
from services import asked, key_format, telemetry
from services.compose import Context
from services.faults import Fault, InvalidRequest, NotFound, Unavailable
from services.identifiers import new_id
from services.key_format import KeySettings
from services.keys import checks
from services.keys.journal import Journal, Revocation
from services.keys.settings import KeysSettings
from services.keys.store import KeysStore, NewKey, Records
from services.keys.watchers import Watchers

JOURNAL_FILE: Final = "revocations.jsonl"

log = telemetry.logger(__name__)


class Keys:
    """The contract KeysService. `clock` gives seconds of the epoch."""

    def __init__(
        self,
        store: KeysStore,
        journal: Journal,
        hashing: KeySettings,
        settings: KeysSettings,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._journal = journal
        self._hash_key = hashing.hash_key
        self._settings = settings
        self._clock = clock
        self._watchers = Watchers(settings.waiting_changes, settings.beat_s)
        self._unwritten = asyncio.Event()
        # Of revocations, in the database; those of a database that hangs outlast the calls that began them.
        self._attempts: set[asyncio.Task[None]] = set()

    async def resolve(self, request: pb.ResolveRequest, /) -> pb.ResolveResponse:
        principal = await self._store.principal(request.digest)
        if principal is None or self._journal.has(principal.organization_id, principal.project_id, principal.key_id):
            return pb.ResolveResponse()
        return pb.ResolveResponse(principal=principal)

    async def watch(self, request: pb.WatchRequest, /) -> AsyncIterator[pb.WatchResponse]:
        """Begins with the revocations that the database does not know of yet."""

        def unwritten() -> list[pb.WatchResponse]:
            return [_revoked(*name) for name in self._journal.revocations]

        async with aclosing(self._watchers.watch(unwritten)) as changes:  # type: ignore[type-var]
            async for change in changes:
                yield change

    async def touch(self, request: pb.TouchRequest, /) -> pb.TouchResponse:
        await self._store.touch(request.used_at_ms)
        return pb.TouchResponse()

    async def create_key(self, request: pb.CreateKeyRequest, /) -> pb.CreateKeyResponse:
        kind, scopes = request.kind, checks.scopes(request.kind, request.access, request.scopes)
        checks.place(kind, request.project_id)
        checks.expiry(request.expires_at, self._clock())
        asked.line(request.name, "name")
        async with self._store.transaction() as records:
            await self._check_owner(records, request)
            key_id, secret = await self._add_key(
                records,
                request.actor,
                organization_id=request.organization_id,
                project_id=request.project_id,
                kind=kind,
                name=request.name,
                owner_id=request.owner_id,
                access=request.access or auth_pb2.ACCESS_ALL,
                scopes=scopes,
                expires_at=request.expires_at,
            )
            key = await records.key(request.organization_id, request.project_id, key_id)
        log.info("key made", key_id=key_id, project_id=request.project_id)
        return pb.CreateKeyResponse(key=key, secret=secret)

    async def get_key(self, request: pb.GetKeyRequest, /) -> pb.GetKeyResponse:
        checks.known(request.organization_id, request.project_id, request.key_id, missing=no_key(request.key_id))
        async with self._store.transaction() as records:
            found = await records.key(request.organization_id, request.project_id, request.key_id)
        if found is None:
            raise no_key(request.key_id)
        return pb.GetKeyResponse(key=found)

    async def list_keys(self, request: pb.ListKeysRequest, /) -> pb.ListKeysResponse:
        asked.page(request.page)
        checks.owner_access(request.owner_access)
        async with self._store.transaction() as records:
            if request.project_id:
                await _project(records, request.organization_id, request.project_id)
            found, has_more = await records.keys(
                request.organization_id, request.project_id, request.page, request.owner_access
            )
        return pb.ListKeysResponse(keys=found, has_more=has_more)

    async def revoke_key(self, request: pb.RevokeKeyRequest, /) -> pb.RevokeKeyResponse:
        """While the database is away or hangs nobody can say whether there is such a key: the revocation is accepted,
        of a key of any kind, and comes to nothing for a key that the organisation, or the project that is named, does
        not have."""
        organization_id, project_id, key_id = request.organization_id, request.project_id, request.key_id
        checks.known(organization_id, project_id, key_id, missing=no_key(key_id))
        revocation = Revocation(organization_id, key_id, request.actor.SerializeToString(), project_id)
        if not await self._written_in_time(revocation, request.kind):
            self._revoke_later(revocation)
        # The database tells everyone, too; this is for the moments until then, and for when it is away.
        self._watchers.tell(_revoked(*revocation.name))
        log.info("key revoked", key_id=key_id)
        return pb.RevokeKeyResponse()

    async def create_service_account(
        self, request: pb.CreateServiceAccountRequest, /
    ) -> pb.CreateServiceAccountResponse:
        asked.line(request.name, "name")
        account = pb.ServiceAccount(
            id=new_id("user-"),
            organization_id=request.organization_id,
            project_id=request.project_id,
            name=request.name,
            role=checks.role(request.role),
            created_at=int(self._clock()),
        )
        key, secret = None, ""
        async with self._store.transaction() as records:
            await _active_project(records, account.organization_id, account.project_id)
            await records.add_account(account)
            await _note(records, "service_account.created", account, request.actor, data={"role": account.role})
            if request.with_key:
                key_id, secret = await self._add_key(
                    records,
                    request.actor,
                    organization_id=account.organization_id,
                    project_id=account.project_id,
                    kind=auth_pb2.KEY_KIND_SERVICE_ACCOUNT,
                    name="Secret Key",
                    owner_id=account.id,
                    access=auth_pb2.ACCESS_ALL,
                    scopes=(),
                    expires_at=0,
                )
                key = await records.key(account.organization_id, account.project_id, key_id)
        return pb.CreateServiceAccountResponse(service_account=account, key=key, secret=secret)

    async def get_service_account(self, request: pb.GetServiceAccountRequest, /) -> pb.GetServiceAccountResponse:
        async with self._store.transaction() as records:
            found = await _account(records, request)
        return pb.GetServiceAccountResponse(service_account=found)

    async def list_service_accounts(self, request: pb.ListServiceAccountsRequest, /) -> pb.ListServiceAccountsResponse:
        asked.page(request.page)
        async with self._store.transaction() as records:
            await _project(records, request.organization_id, request.project_id)
            found, has_more = await records.accounts(request.organization_id, request.project_id, request.page)
        return pb.ListServiceAccountsResponse(service_accounts=found, has_more=has_more)

    async def update_service_account(
        self, request: pb.UpdateServiceAccountRequest, /
    ) -> pb.UpdateServiceAccountResponse:
        changes: dict[str, str] = {}
        if request.HasField("name"):
            changes["name"] = asked.line(request.name, "name")
        if request.HasField("role"):
            changes["role"] = checks.role(request.role)
        async with self._store.transaction() as records:
            account = await _account(records, request, locked=True)
            await _active_project(records, request.organization_id, request.project_id)
            changed = {name: value for name, value in changes.items() if getattr(account, name) != value}
            if changed:
                for name, value in changed.items():
                    setattr(account, name, value)
                await records.change_account(account)
                await _note(records, "service_account.updated", account, request.actor, changes_requested=changed)
        return pb.UpdateServiceAccountResponse(service_account=account)

    async def delete_service_account(
        self, request: pb.DeleteServiceAccountRequest, /
    ) -> pb.DeleteServiceAccountResponse:
        async with self._store.transaction() as records:
            account = await _account(records, request, locked=True)
            revoked = await records.delete_account(account)
            await _note(records, "service_account.deleted", account, request.actor)
        for key_id in revoked:
            self._watchers.tell(_revoked(account.organization_id, account.project_id, key_id))
        return pb.DeleteServiceAccountResponse()

    async def follow(self) -> None:
        """Passes on what the database tells, for ever."""
        async with aclosing(self._store.changes()) as changes:
            async for change in changes:
                self._watchers.tell(_told(change))

    async def keep_writing(self) -> None:
        """Writes down the revocations that the database could not take, as soon as it can, for ever."""
        if self._journal.revocations:
            self._unwritten.set()
        while True:
            await self._unwritten.wait()
            self._unwritten.clear()
            try:
                await self._write_down()
            except Exception as error:  # whatever it is, nobody else would write them down
                note = log.debug if isinstance(error, Fault | OSError) else log.error
                note("revocations wait for the database", count=len(self._journal.revocations), error=error)
                self._unwritten.set()
                await asyncio.sleep(self._settings.retry_s)

    async def _write_down(self) -> None:
        waiting = list(self._journal.revocations.values())
        for revocation in waiting:
            try:
                await self._write(revocation)
            except NotFound:
                log.warning("a key was revoked that does not exist", key_id=revocation.key_id)
        if waiting:
            self._journal.remove(waiting)
            log.info("revocations are written down", count=len(waiting))

    async def _written_in_time(self, revocation: Revocation, kind: auth_pb2.KeyKind) -> bool:
        """Whether the database has taken it. Raises NotFound.

        An attempt that takes too long is left to itself: to cancel it would mean to wait for the database after all,
        and a revocation may be written twice.
        """
        attempt = asyncio.create_task(self._write(revocation, kind), name="keys revocation")
        self._attempts.add(attempt)
        attempt.add_done_callback(self._ended)
        await asyncio.wait((attempt,), timeout=self._settings.database_wait_s)
        if not attempt.done():
            return False
        try:
            attempt.result()
        except Unavailable:
            return False
        return True

    def _ended(self, attempt: asyncio.Task[None]) -> None:
        self._attempts.discard(attempt)
        if not attempt.cancelled():
            # Marks it as seen: what comes too late is in the journal, and is found out from there.
            attempt.exception()

    async def close(self) -> None:
        """Gives up what still waits for the database."""
        for attempt in self._attempts:
            attempt.cancel()
        if self._attempts:
            await asyncio.wait(self._attempts)

    async def _write(self, revocation: Revocation, kind: auth_pb2.KeyKind = auth_pb2.KEY_KIND_UNSPECIFIED) -> None:
        async with self._store.transaction() as records:
            await _revoke(records, revocation, kind)

    def _revoke_later(self, revocation: Revocation) -> None:
        """Waits for the disk: this is rare, and until it is done nothing has happened."""
        try:
            self._journal.add(revocation)
        except OSError as error:
            log.error("a revocation cannot be kept", key_id=revocation.key_id, error=error)
            raise Unavailable(
                "database_unavailable", "The database cannot be reached, and the revocation cannot be kept. Try again."
            ) from error
        log.warning("key revoked while the database is away", key_id=revocation.key_id)
        self._unwritten.set()

    async def _check_owner(self, records: Records, request: pb.CreateKeyRequest) -> None:
        organization_id, project_id, owner_id = request.organization_id, request.project_id, request.owner_id
        checks.known(organization_id, project_id, owner_id, missing=_no_project(project_id))
        if project_id:
            await _active_project(records, organization_id, project_id)
        elif not await records.has_organization(organization_id):
            raise NotFound(
                "organization_not_found", f"No such organization: '{organization_id}'.", param="organization_id"
            )
        if request.kind == auth_pb2.KEY_KIND_SERVICE_ACCOUNT:
            if await records.account(organization_id, project_id, owner_id, locked=True) is None:
                raise _no_account(owner_id)
        elif owner_id:
            role = await records.role(organization_id, project_id, owner_id)
            if role is None:
                raise NotFound("user_not_found", f"No such user: '{owner_id}'.", param="user_id")
            if not project_id and role != "owner":
                raise InvalidRequest(
                    "invalid_value", "An admin key belongs to an owner of the organization.", param="user_id"
                )

    async def _add_key(self, records: Records, actor: Actor, **fields: Any) -> tuple[str, str]:
        """The id and the secret of a new key."""
        secret = key_format.generate(fields["kind"], secrets.token_bytes(key_format.RANDOM_BYTES))
        key = NewKey(
            id=new_id("key_"),
            digest=key_format.digest(secret, self._hash_key),
            redacted=key_format.redact(secret),
            **fields,
        )
        await records.add_key(key)
        data = {"scopes": list(key.scopes)}
        await records.note("api_key.created", key.organization_id, key.project_id, actor, key.id, data=data)
        return key.id, secret


async def _revoke(records: Records, revocation: Revocation, kind: auth_pb2.KeyKind) -> None:
    """Raises NotFound, also when the key is of another project or kind than the one named."""
    organization_id, named, key_id = revocation.name
    found = await records.revoke_key(organization_id, key_id)
    if found is None or named not in ("", found[0]) or kind not in (auth_pb2.KEY_KIND_UNSPECIFIED, found[1]):
        raise no_key(key_id)
    project_id, _, was_valid = found
    if was_valid:
        actor = Actor.FromString(revocation.actor)
        await records.note("api_key.deleted", organization_id, project_id, actor, key_id)


async def _project(records: Records, organization_id: str, project_id: str, *, hold: bool = False) -> bool:
    """Whether the project is archived, which with `hold` stays so. Raises NotFound."""
    checks.known(organization_id, project_id, missing=_no_project(project_id))
    archived = await records.project_archived(organization_id, project_id, hold=hold)
    if archived is None:
        raise _no_project(project_id)
    return archived


async def _active_project(records: Records, organization_id: str, project_id: str) -> None:
    """Nobody archives it meanwhile. Raises NotFound or InvalidRequest (project_archived)."""
    if await _project(records, organization_id, project_id, hold=True):
        raise InvalidRequest(
            "project_archived", f"The project '{project_id}' is archived and cannot be changed.", param="project_id"
        )


_AccountRequest = pb.GetServiceAccountRequest | pb.UpdateServiceAccountRequest | pb.DeleteServiceAccountRequest


async def _account(records: Records, request: _AccountRequest, *, locked: bool = False) -> pb.ServiceAccount:
    """Raises NotFound."""
    name = request.service_account_id
    checks.known(request.organization_id, request.project_id, name, missing=_no_account(name))
    found = await records.account(request.organization_id, request.project_id, name, locked=locked)
    if found is None:
        raise _no_account(name)
    return found


async def _note(
    records: Records, kind: str, account: pb.ServiceAccount, actor: Actor, **details: dict[str, Any]
) -> None:
    await records.note(kind, account.organization_id, account.project_id, actor, account.id, **details)


def no_key(key_id: str) -> NotFound:
    return NotFound("key_not_found", f"No such API key: '{key_id}'.", param="key_id")


def _no_account(account_id: str) -> NotFound:
    return NotFound(
        "service_account_not_found", f"No such service account: '{account_id}'.", param="service_account_id"
    )


def _no_project(project_id: str) -> NotFound:
    return NotFound("project_not_found", f"No such project: '{project_id}'.", param="project_id")


def _revoked(organization_id: str, project_id: str, key_id: str) -> pb.WatchResponse:
    return pb.WatchResponse(organization_id=organization_id, project_id=project_id, key_id=key_id, revoked=True)


def _told(change: tuple[str, str] | None) -> pb.WatchResponse:
    match change:
        case ("organization", name):
            return pb.WatchResponse(organization_id=name)
        case ("project", name):
            return pb.WatchResponse(project_id=name)
        case ("key", name):
            return pb.WatchResponse(key_id=name)
        case _:
            return pb.WatchResponse(all=True)


@asynccontextmanager
async def serving(
    store: KeysStore,
    journal: Journal,
    hashing: KeySettings,
    settings: KeysSettings,
    *,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Keys]:
    """The service, which passes on changes and catches up with revocations. Raises OSError for a journal that cannot
    be read."""
    if unreadable := journal.load():
        log.warning("lines of the journal of revocations cannot be read", lines=unreadable)
    keys = Keys(store, journal, hashing, settings, clock=clock)
    tasks = [
        asyncio.create_task(keys.follow(), name="keys changes"),
        asyncio.create_task(keys.keep_writing(), name="keys revocations"),
    ]
    try:
        yield keys
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await keys.close()


@asynccontextmanager
async def build(context: Context) -> AsyncIterator[Keys]:
    store = KeysStore(context.database())
    journal = Journal(context.platform.home / JOURNAL_FILE)
    async with serving(store, journal, context.settings(KeySettings), context.settings(KeysSettings)) as keys:
        yield keys

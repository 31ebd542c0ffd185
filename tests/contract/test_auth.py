"""AuthService before a real KeysService, over both wirings."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from modelplane.auth.v1 import auth_pb2
from modelplane.auth.v1.auth_api import AuthService
from modelplane.keys.v1 import keys_pb2
from modelplane.keys.v1.keys_api import KeysService
from services.auth.service import Auth, serving
from services.auth.settings import AuthSettings
from services.faults import Unauthenticated
from services.key_format import KeySettings
from services.keys import service as keys_service
from services.keys.journal import Journal
from services.keys.settings import KeysSettings
from services.keys.store import KeysStore
from services.storage import Database
from tests.contract.conftest import Wire
from tests.contract.tenancy import write

NOW_S = 1_700_000_000


@pytest.fixture
def wall() -> list[float]:
    return [float(NOW_S)]


@pytest.fixture
async def keys(database: Database, wire: Wire, tmp_path: Path, wall: list[float]) -> AsyncIterator[KeysService]:
    await write(database)
    journal = Journal(tmp_path / "revocations.jsonl")
    async with keys_service.serving(
        KeysStore(database), journal, KeySettings(), KeysSettings(), clock=lambda: wall[0]
    ) as service:
        yield await wire(KeysService, service)


@pytest.fixture
async def auth(keys: KeysService, wire: Wire, wall: list[float]) -> AsyncIterator[AuthService]:
    async with serving(Auth(keys, KeySettings(), AuthSettings(), wall=lambda: wall[0])) as service:
        yield await wire(AuthService, service)


async def make(keys: KeysService, **fields: Any) -> keys_pb2.CreateKeyResponse:
    given = {"organization_id": "org-1", "project_id": "proj_1", "kind": auth_pb2.KEY_KIND_PROJECT, **fields}
    return await keys.create_key(keys_pb2.CreateKeyRequest(**given))


async def authenticate(auth: AuthService, key: str, organization: str = "", project: str = "") -> auth_pb2.Principal:
    request = auth_pb2.AuthenticateRequest(key=key, organization=organization, project=project)
    return (await auth.authenticate(request)).principal


async def refusal(auth: AuthService, key: str, organization: str = "", project: str = "") -> Unauthenticated:
    with pytest.raises(Unauthenticated) as caught:
        await authenticate(auth, key, organization, project)
    return caught.value


async def test_a_key_is_its_principal(auth: AuthService, keys: KeysService) -> None:
    made = await make(keys)
    for _ in range(2):
        principal = await authenticate(auth, made.secret)
        assert (principal.organization_id, principal.project_id) == ("org-1", "proj_1")
        assert (principal.key_id, principal.kind) == (made.key.id, auth_pb2.KEY_KIND_PROJECT)
        assert principal.usage_tier == 3
    admin = await make(keys, project_id="", kind=auth_pb2.KEY_KIND_ADMIN)
    assert (await authenticate(auth, admin.secret)).project_id == ""


async def test_headers_select_what_the_key_may_use(auth: AuthService, keys: KeysService) -> None:
    made = await make(keys)
    admin = await make(keys, project_id="", kind=auth_pb2.KEY_KIND_ADMIN)
    await authenticate(auth, made.secret, "org-1", "proj_1")
    await authenticate(auth, admin.secret, "org-1")
    fault = await refusal(auth, made.secret, organization="org-2")
    assert fault.reason == "mismatched_organization"
    assert fault.message == "OpenAI-Organization header should match organization for API key"
    fault = await refusal(auth, made.secret, "org-1", project="proj_2")
    assert fault.reason == "mismatched_project"
    assert fault.message == "OpenAI-Project header should match project for API key"
    assert (await refusal(auth, admin.secret, project="proj_1")).reason == "mismatched_project"


async def test_no_key(auth: AuthService) -> None:
    fault = await refusal(auth, "")
    assert fault.reason == "missing_api_key"
    assert fault.message.startswith("You didn't provide an API key.")


async def test_keys_that_are_none(auth: AuthService, keys: KeysService) -> None:
    made = await make(keys)
    mistyped = made.secret[:-1] + ("A" if made.secret[-1] != "A" else "B")
    for key, shown in (
        (mistyped, f"sk-proj-****{mistyped[-4:]}"),
        ("sk-1234", "sk-****"),
        ("é", "****"),
        ("x" * 100_000, "****xxxx"),
    ):
        fault = await refusal(auth, key)
        assert fault.reason == "invalid_api_key"
        assert fault.message.startswith(f"Incorrect API key provided: {shown}. ")


async def test_a_key_works_until_it_is_revoked(auth: AuthService, keys: KeysService) -> None:
    made, other = await make(keys), await make(keys)
    await authenticate(auth, made.secret)
    await keys.revoke_key(keys_pb2.RevokeKeyRequest(organization_id="org-1", key_id=made.key.id))
    await until_refused(auth, made.secret)
    await authenticate(auth, other.secret)


async def until_refused(auth: AuthService, key: str) -> None:
    """Raises TimeoutError when that takes longer than is promised: a second, and what a busy machine adds."""
    async with asyncio.timeout(5):
        while True:
            try:
                await authenticate(auth, key)
            except Unauthenticated:
                return
            await asyncio.sleep(0.005)


async def test_a_key_expires(auth: AuthService, keys: KeysService, wall: list[float]) -> None:
    made = await make(keys, expires_at=NOW_S + 10)
    await authenticate(auth, made.secret)
    wall[0] = NOW_S + 9.9
    await authenticate(auth, made.secret)
    wall[0] = NOW_S + 10
    fault = await refusal(auth, made.secret)
    assert fault.reason == "expired_api_key" and made.secret not in fault.message


@pytest.mark.parametrize(
    ("change", "read"),
    [
        ("UPDATE organizations SET usage_tier = 5 WHERE id = 'org-1'", lambda principal: principal.usage_tier == 5),
        ("UPDATE projects SET weight = 9 WHERE id = 'proj_1'", lambda principal: principal.weight == 9),
        (
            "UPDATE projects SET ip_ranges = '{10.0.0.0/8}' WHERE id = 'proj_1'",
            lambda principal: list(principal.ip_ranges) == ["10.0.0.0/8"],
        ),
        (
            "INSERT INTO limit_overrides (organization_id, project_id, model, dimension, units) "
            "VALUES ('org-1', 'proj_1', 'm', 1, 7)",
            lambda principal: [limit.limit for limit in principal.limits] == [7],
        ),
    ],
)
async def test_a_change_is_seen_within_a_second(
    auth: AuthService, keys: KeysService, database: Database, change: str, read: Any
) -> None:
    made = await make(keys)
    assert not read(await authenticate(auth, made.secret))
    await write(database, change)
    async with asyncio.timeout(5):
        while not read(await authenticate(auth, made.secret)):
            await asyncio.sleep(0.005)


async def test_the_end_of_a_project_is_the_end_of_its_keys(
    auth: AuthService, keys: KeysService, database: Database
) -> None:
    made = await make(keys)
    await authenticate(auth, made.secret)
    await write(database, "UPDATE projects SET archived_at = now() WHERE id = 'proj_1'")
    await until_refused(auth, made.secret)

"""AuthService, over both wirings."""

from collections.abc import AsyncIterator

import pytest

from modelplane.auth.v1 import auth_pb2
from modelplane.auth.v1.auth_api import AuthService
from services.auth.service import serving
from services.auth.settings import Settings
from services.auth.store import Store
from services.faults import NotFound, Unauthenticated
from services.storage import Database
from tests.contract.conftest import Wire


@pytest.fixture
async def auth(database: Database, wire: Wire) -> AsyncIterator[AuthService]:
    async with serving(Store(database), Settings()) as service:
        yield await wire(AuthService, service)


@pytest.fixture
async def first(auth: AuthService) -> auth_pb2.BootstrapResponse:
    return await auth.bootstrap(auth_pb2.BootstrapRequest())


async def authenticate(auth: AuthService, key: str, organization: str = "", project: str = "") -> auth_pb2.Principal:
    request = auth_pb2.AuthenticateRequest(key=key, organization=organization, project=project)
    return (await auth.authenticate(request)).principal


async def refusal(auth: AuthService, key: str, organization: str = "", project: str = "") -> Unauthenticated:
    with pytest.raises(Unauthenticated) as caught:
        await authenticate(auth, key, organization, project)
    return caught.value


async def test_the_first_keys(auth: AuthService, first: auth_pb2.BootstrapResponse) -> None:
    assert first.created
    assert first.organization_id.startswith("org-") and first.project_id.startswith("proj_")
    assert first.api_key.startswith("sk-proj-") and first.admin_key.startswith("sk-admin-")
    principal = await authenticate(auth, first.api_key)
    assert principal.organization_id == first.organization_id
    assert principal.project_id == first.project_id
    assert principal.key_id.startswith("key_")
    assert principal.kind == auth_pb2.KEY_KIND_PROJECT
    admin = await authenticate(auth, first.admin_key)
    assert (admin.organization_id, admin.project_id) == (first.organization_id, "")
    assert admin.kind == auth_pb2.KEY_KIND_ADMIN


async def test_bootstrap_happens_once(auth: AuthService, first: auth_pb2.BootstrapResponse) -> None:
    assert await auth.bootstrap(auth_pb2.BootstrapRequest()) == auth_pb2.BootstrapResponse(
        created=False, organization_id=first.organization_id, project_id=first.project_id
    )


async def test_headers_that_match_are_welcome(auth: AuthService, first: auth_pb2.BootstrapResponse) -> None:
    await authenticate(auth, first.api_key, first.organization_id, first.project_id)
    await authenticate(auth, first.admin_key, first.organization_id)


async def test_headers_that_do_not_match_are_refused(auth: AuthService, first: auth_pb2.BootstrapResponse) -> None:
    fault = await refusal(auth, first.api_key, organization="org-other")
    assert fault.reason == "mismatched_organization"
    assert fault.message == "OpenAI-Organization header should match organization for API key"
    fault = await refusal(auth, first.api_key, first.organization_id, project="proj_other")
    assert fault.reason == "mismatched_project"
    assert fault.message == "OpenAI-Project header should match project for API key"
    assert (await refusal(auth, first.admin_key, project=first.project_id)).reason == "mismatched_project"


async def test_no_key(auth: AuthService) -> None:
    fault = await refusal(auth, "")
    assert fault.reason == "missing_api_key"
    assert fault.message.startswith("You didn't provide an API key.")


async def test_keys_that_are_none(auth: AuthService, first: auth_pb2.BootstrapResponse) -> None:
    mistyped = first.api_key[:-1] + ("A" if first.api_key[-1] != "A" else "B")
    for key, shown in (
        (mistyped, f"sk-proj-****{mistyped[-4:]}"),
        ("sk-1234", "sk-****"),
        ("é", "****"),
        ("x" * 100_000, "****xxxx"),
    ):
        fault = await refusal(auth, key)
        assert fault.reason == "invalid_api_key"
        assert fault.message.startswith(f"Incorrect API key provided: {shown}. ")


async def test_a_made_key_works_until_it_is_revoked(auth: AuthService, first: auth_pb2.BootstrapResponse) -> None:
    made = await auth.create_key(
        auth_pb2.CreateKeyRequest(organization_id=first.organization_id, project_id=first.project_id, name="ci")
    )
    assert made.redacted == f"sk-proj-****{made.secret[-4:]}"
    assert (await authenticate(auth, made.secret)).key_id == made.key_id
    revoke = auth_pb2.RevokeKeyRequest(organization_id=first.organization_id, key_id=made.key_id)
    for _ in range(2):
        await auth.revoke_key(revoke)
        assert (await refusal(auth, made.secret)).reason == "invalid_api_key"
    await authenticate(auth, first.api_key)


async def test_a_key_needs_a_project_of_its_organization(auth: AuthService, first: auth_pb2.BootstrapResponse) -> None:
    for organization, project in ((first.organization_id, "proj_none"), ("org-other", first.project_id)):
        with pytest.raises(NotFound) as caught:
            await auth.create_key(auth_pb2.CreateKeyRequest(organization_id=organization, project_id=project))
        assert caught.value.reason == "project_not_found"


async def test_only_its_own_organization_revokes_a_key(auth: AuthService, first: auth_pb2.BootstrapResponse) -> None:
    key_id = (await authenticate(auth, first.api_key)).key_id
    for organization, key in (("org-other", key_id), (first.organization_id, "key_none")):
        with pytest.raises(NotFound) as caught:
            await auth.revoke_key(auth_pb2.RevokeKeyRequest(organization_id=organization, key_id=key))
        assert caught.value.reason == "key_not_found"
    await authenticate(auth, first.api_key)

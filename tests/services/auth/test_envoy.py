"""Envoy's ext_authz: what is answered, and a real Envoy that acts on it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from envoy.config.core.v3.base_pb2 import HeaderValue
from envoy.extensions.common.ratelimit.v3.ratelimit_pb2 import RateLimitDescriptor
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse
from google.protobuf.json_format import MessageToDict

from modelplane.auth.v1 import auth_pb2
from modelplane.auth.v1.auth_pb2 import AuthenticateRequest, AuthenticateResponse, Principal
from modelplane.keys.v1 import keys_pb2
from modelplane.limits.v1.limits_pb2 import DIMENSION_REQUESTS_PER_MINUTE, SCOPE_PROJECT, Override
from modelplane.ratelimit.v1.ratelimit_pb2 import DescribeLimitsRequest
from services.auth import envoy
from services.auth.service import Auth
from services.auth.settings import AuthSettings
from services.faults import Unauthenticated, Unavailable
from services.key_format import KeySettings
from services.keys import service as keys_service
from services.keys.journal import Journal
from services.keys.settings import KeysSettings
from services.keys.store import KeysStore
from services.ratelimit.envoy import read
from services.rpc.serve import RpcServer
from services.storage import Database
from tests.contract.tenancy import write
from tests.fakes.envoys import asked, cluster, offered, proxied

PROTOCOL = "envoy.service.auth.v3.external_auth_pb2:Authorization"
ROUTE = {"route": {"cluster": "upstream"}}
PRINCIPAL = Principal(
    organization_id="org-1",
    project_id="proj_1",
    key_id="key_1",
    owner_id="user-1",
    kind=auth_pb2.KEY_KIND_PROJECT,
    access=auth_pb2.ACCESS_ALL,
    usage_tier=3,
    limits=[Override(scope=SCOPE_PROJECT, model="m", dimension=DIMENSION_REQUESTS_PER_MINUTE, limit=7)],
)


def principal(**changes: Any) -> Principal:
    changed = Principal()
    changed.CopyFrom(PRINCIPAL)
    for name in changes:
        changed.ClearField(name)
    changed.MergeFrom(Principal(**changes))
    return changed


class Asked:
    """Authenticates everybody as one principal, or refuses everybody."""

    def __init__(self, answer: Principal | Exception = PRINCIPAL) -> None:
        self.answer = answer
        self.requests: list[AuthenticateRequest] = []

    async def __call__(self, request: AuthenticateRequest, /) -> AuthenticateResponse:
        self.requests.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return AuthenticateResponse(principal=self.answer)


def request(address: str = "192.0.2.1", extensions: dict[str, str] | None = None, **headers: str) -> CheckRequest:
    made = CheckRequest()
    made.attributes.source.address.socket_address.address = address
    made.attributes.request.http.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    made.attributes.context_extensions.update(extensions or {})
    return made


def added(response: CheckResponse) -> dict[str, str]:
    shown = response.denied_response if response.HasField("denied_response") else response.ok_response
    return {option.header.key: option.header.value for option in shown.headers}


def code(response: CheckResponse) -> tuple[int, str]:
    return response.denied_response.status.code, json.loads(response.denied_response.body)["error"]["code"]


async def test_what_passes_says_who_it_is_and_not_its_key() -> None:
    authenticate = Asked()
    response = await envoy.answer(
        authenticate,
        request(authorization="Bearer sk-proj-1", openai_organization="org-1", openai_project="proj_1"),
    )

    assert response.status.code == 0
    assert added(response) == {
        "x-modelplane-organization": "org-1",
        "x-modelplane-project": "proj_1",
        "x-modelplane-key-id": "key_1",
        "x-modelplane-user": "user-1",
    }
    assert list(response.ok_response.headers_to_remove) == ["authorization"]
    assert "sk-proj-1" not in str(response)
    assert authenticate.requests == [
        AuthenticateRequest(key="sk-proj-1", organization="org-1", project="proj_1", address="192.0.2.1")
    ]


async def test_what_a_client_says_of_itself_is_taken_away() -> None:
    response = await envoy.answer(Asked(principal(owner_id="")), request(authorization="Bearer k"))

    assert list(response.ok_response.headers_to_remove) == ["x-modelplane-user", "authorization"]


async def test_an_upstream_that_asks_for_keys_itself_may_have_it() -> None:
    response = await envoy.answer(Asked(), request(extensions={"authorization": "keep"}, authorization="Bearer k"))

    assert not response.ok_response.headers_to_remove


async def test_the_metadata_make_a_descriptor_of_the_limits_in_force() -> None:
    response = await envoy.answer(Asked(), request(authorization="Bearer k"))
    metadata = MessageToDict(response.dynamic_metadata)

    entries = [RateLimitDescriptor.Entry(key=key, value=value) for key, value in metadata.items()]
    descriptor = RateLimitDescriptor(entries=[*entries, RateLimitDescriptor.Entry(key="model", value="m")])
    found = read(descriptor, 1)
    assert found is not None
    assert (found.request.organization_id, found.request.project_id, found.request.usage_tier) == ("org-1", "proj_1", 3)
    assert DescribeLimitsRequest(overrides=found.request.overrides).overrides == PRINCIPAL.limits


async def test_headers_in_their_raw_form_are_read_too() -> None:
    authenticate, made = Asked(), CheckRequest()
    made.attributes.request.http.header_map.headers.append(HeaderValue(key="Authorization", raw_value=b"Bearer k"))

    await envoy.answer(authenticate, made)

    assert authenticate.requests[0].key == "k"


@pytest.mark.parametrize("authorization", ["", "Basic sk-proj-1"])
async def test_only_a_bearer_is_a_key(authorization: str) -> None:
    authenticate = Asked()
    await envoy.answer(authenticate, request(authorization=authorization))
    assert authenticate.requests[0].key == ""


async def test_a_bad_key_is_an_answer_in_openais_words() -> None:
    refused = Unauthenticated("invalid_api_key", "Incorrect API key provided: k.")
    response = await envoy.answer(Asked(refused), request(authorization="Bearer k"))

    assert code(response) == (401, "invalid_api_key")
    assert added(response) == {"content-type": "application/json", "x-should-retry": "false"}
    assert response.status.code == 16


async def test_while_keys_cannot_be_asked_nobody_passes() -> None:
    away = Unavailable("service_unavailable", "Too many unknown API keys are being tried.", retry_after_ms=1500)
    response = await envoy.answer(Asked(away), request(authorization="Bearer k"))

    assert code(response) == (503, "service_unavailable")
    assert added(response)["retry-after"] == "2"


@pytest.mark.parametrize(
    ("who", "extensions", "expected"),
    [
        (principal(kind=auth_pb2.KEY_KIND_ADMIN, project_id=""), {}, (403, "insufficient_permissions")),
        (principal(access=auth_pb2.ACCESS_READ_ONLY), {}, (403, "missing_scope")),
        (principal(access=auth_pb2.ACCESS_RESTRICTED, scopes=["api.model.read"]), {}, (403, "missing_scope")),
        (principal(), {"scope": "api.usage.read"}, (403, "insufficient_permissions")),
        (principal(), {"scope": "no.such.scope"}, (500, "internal_error")),
        (principal(ip_ranges=["198.51.100.0/24"]), {}, (401, "ip_not_authorized")),
    ],
)
async def test_who_may_not(who: Principal, extensions: dict[str, str], expected: tuple[int, str]) -> None:
    response = await envoy.answer(Asked(who), request(extensions=extensions, authorization="Bearer k"))
    assert code(response) == expected


@pytest.mark.parametrize(
    ("who", "extensions"),
    [
        (principal(access=auth_pb2.ACCESS_RESTRICTED, scopes=["model.request"]), {}),
        (principal(access=auth_pb2.ACCESS_READ_ONLY), {"scope": "api.model.read"}),
        (principal(kind=auth_pb2.KEY_KIND_ADMIN, project_id=""), {"scope": "api.usage.read"}),
        (principal(ip_ranges=["198.51.100.0/24", "192.0.2.0/24"]), {}),
    ],
)
async def test_who_may(who: Principal, extensions: dict[str, str]) -> None:
    response = await envoy.answer(Asked(who), request(extensions=extensions, authorization="Bearer k"))
    assert response.status.code == 0


def asks(*, allow: bool) -> dict[str, Any]:
    return {
        "name": "envoy.filters.http.ext_authz",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
            "transport_api_version": "V3",
            "grpc_service": asked("auth"),
            "failure_mode_allow": allow,
            "status_on_error": {"code": 503},
        },
    }


@asynccontextmanager
async def edge(folder: Path, server: RpcServer, *, allow: bool = False) -> AsyncIterator[httpx.AsyncClient]:
    port = int(server.address.rpartition(":")[2])
    async with (
        proxied(folder, ROUTE, [asks(allow=allow)], [cluster("auth", port, grpc=True)]) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        yield client


async def test_a_real_envoy(database: Database, tmp_path: Path) -> None:
    await write(database)
    journal = Journal(tmp_path / "revocations.jsonl")
    async with keys_service.serving(KeysStore(database), journal, KeySettings(), KeysSettings()) as keys:
        made = await keys.create_key(
            keys_pb2.CreateKeyRequest(organization_id="org-1", project_id="proj_1", kind=auth_pb2.KEY_KIND_PROJECT)
        )
        auth = Auth(keys, KeySettings(), AuthSettings())
        async with offered(auth, PROTOCOL) as server, edge(tmp_path, server) as client:
            key = {"authorization": f"Bearer {made.secret}"}
            allowed = await client.get("/", headers={**key, "x-modelplane-user": "root", "x-modelplane-project": "x"})
            assert allowed.status_code == 200
            seen = allowed.json()
            assert "authorization" not in seen
            assert "x-modelplane-user" not in seen
            assert seen["x-modelplane-project"] == "proj_1"
            assert seen["x-modelplane-key-id"] == made.key.id

            for headers, expected in (({}, None), ({"authorization": "Bearer sk-proj-no"}, "invalid_api_key")):
                denied = await client.get("/", headers=headers)
                assert denied.status_code == 401
                assert denied.headers["content-type"] == "application/json"
                assert denied.headers["x-should-retry"] == "false"
                assert denied.json()["error"]["code"] == expected

            # Nobody answers: what happens is Envoy's to decide, as it is configured.
            await server.stop(0)
            assert (await client.get("/", headers=key)).status_code == 503


async def test_a_real_envoy_that_was_told_to_let_everybody_in(tmp_path: Path) -> None:
    async with offered(object(), PROTOCOL) as server, edge(tmp_path, server, allow=True) as client:
        await server.stop(0)
        assert (await client.get("/")).status_code == 200

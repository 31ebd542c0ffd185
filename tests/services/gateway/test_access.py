"""Who gets past the edge: the kind of key, its scopes, where it is used from, and which models its project may use."""

from collections.abc import AsyncIterator, Sequence

import httpx
import pytest

from modelplane.auth.v1.auth_pb2 import (
    ACCESS_ALL,
    ACCESS_READ_ONLY,
    ACCESS_RESTRICTED,
    KEY_KIND_PROJECT,
    KEY_KIND_SERVICE_ACCOUNT,
    ModelPolicy,
    Principal,
)
from services.gateway.access import Access
from services.gateway.calls import Call, Message
from services.gateway.settings import GatewaySettings
from services.settings import SettingsError
from tests.fakes.control import ADMIN_KEY, FakeAuth
from tests.services.gateway.conftest import ALIAS, MODEL, Edge, running_edge

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
CALLS = {
    "api.model.read": ("GET", "/v1/models"),
    "model.request": ("POST", "/v1/chat/completions"),
    "api.chat.completions.read": ("GET", "/v1/chat/completions"),
    "api.chat.completions.write": ("DELETE", "/v1/chat/completions/chatcmpl-none"),
}


def principal(**fields: object) -> Principal:
    given = {"organization_id": "org-1", "project_id": "proj-1", "key_id": "key-9", "kind": KEY_KIND_PROJECT}
    return Principal(**{**given, **fields})  # type: ignore[arg-type]


async def ask(edge: Edge, who: Principal, method: str, path: str, body: object = None) -> httpx.Response:
    edge.auth.principals["sk-proj-x"] = who
    async with edge.http() as http:
        return await http.request(method, path, json=body, headers={"authorization": "Bearer sk-proj-x"})


def code(response: httpx.Response) -> tuple[int, str | None]:
    return response.status_code, response.json().get("error", {}).get("code")


@pytest.mark.parametrize("scope", CALLS)
async def test_a_restricted_key_does_what_its_scopes_say(edge: Edge, scope: str) -> None:
    await edge.add_replica()
    who = principal(access=ACCESS_RESTRICTED, scopes=[scope])
    for needed, (method, path) in CALLS.items():
        body = CHAT if needed == "model.request" else None
        answer = await ask(edge, who, method, path, body)
        if needed == scope:
            assert answer.status_code != 403
        else:
            assert code(answer) == (403, "missing_scope")
            assert f"Missing scopes: {needed}." in answer.json()["error"]["message"]


async def test_a_key_that_may_only_read(edge: Edge) -> None:
    who = principal(access=ACCESS_READ_ONLY)
    refused = {scope: code(await ask(edge, who, *call))[0] == 403 for scope, call in CALLS.items()}
    assert refused == {scope: not scope.endswith(".read") for scope in CALLS}
    assert edge.ratelimit.reserved == {}


@pytest.mark.parametrize("kind", [KEY_KIND_PROJECT, KEY_KIND_SERVICE_ACCOUNT])
async def test_keys_of_projects_run_models(edge: Edge, kind: int) -> None:
    await edge.add_replica()
    answer = await ask(edge, principal(kind=kind, access=ACCESS_ALL), "POST", "/v1/chat/completions", CHAT)
    assert answer.status_code == 200


async def test_an_admin_key_runs_nothing_and_its_body_is_not_read(edge: Edge) -> None:
    async with edge.http() as http:
        answer = await http.post(
            "/v1/chat/completions", content=b"no json", headers={"authorization": f"Bearer {ADMIN_KEY}"}
        )
    assert code(answer) == (403, "insufficient_permissions")


@pytest.mark.parametrize(
    ("mode", "models", "visible"),
    [
        (ModelPolicy.MODE_UNSPECIFIED, [], True),
        (ModelPolicy.MODE_ALLOW_LIST, [MODEL], True),
        (ModelPolicy.MODE_ALLOW_LIST, ["another"], False),
        (ModelPolicy.MODE_ALLOW_LIST, [], False),
        (ModelPolicy.MODE_DENY_LIST, ["another"], True),
        (ModelPolicy.MODE_DENY_LIST, [MODEL], False),
        (ModelPolicy.MODE_ALLOW_LIST, [ALIAS], True),
        (ModelPolicy.MODE_DENY_LIST, [ALIAS], False),
    ],
)
async def test_what_a_project_may_not_use_is_not_there(
    edge: Edge, mode: "ModelPolicy.Mode", models: Sequence[str], visible: bool
) -> None:
    await edge.add_replica()
    who = principal(models=ModelPolicy(mode=mode, models=models))
    listed = await ask(edge, who, "GET", "/v1/models")
    assert [model["id"] for model in listed.json()["data"]] == ([MODEL] if visible else [])
    assert ((await ask(edge, who, "GET", f"/v1/models/{MODEL}")).status_code == 200) == visible
    for name in (MODEL, ALIAS):
        answer = await ask(edge, who, "POST", "/v1/chat/completions", {**CHAT, "model": name})
        assert code(answer) == ((200, None) if visible else (404, "model_not_found"))
    if not visible:
        assert edge.ratelimit.reserved == {} and edge.billing.usages == {}
        unknown = await ask(edge, who, "GET", "/v1/models/no-such-model")
        hidden = await ask(edge, who, "GET", f"/v1/models/{MODEL}")
        assert hidden.json()["error"]["message"].replace(MODEL, "*") == unknown.json()["error"]["message"].replace(
            "no-such-model", "*"
        )


async def test_addresses(edge: Edge) -> None:
    for ranges, expected in (
        ([], 200),
        (["127.0.0.0/8"], 200),
        (["10.0.0.0/8", "127.0.0.1"], 200),
        (["10.0.0.0/8", "::1"], 401),
    ):
        answer = await ask(edge, principal(ip_ranges=ranges), "GET", "/v1/models")
        assert answer.status_code == expected
    assert code(answer) == (401, "ip_not_authorized")
    assert "127.0.0.1" in answer.json()["error"]["message"]


@pytest.fixture
async def behind_a_proxy() -> AsyncIterator[Edge]:
    async with running_edge(GatewaySettings(trusted_proxies=("127.0.0.1", "10.0.0.0/8"))) as edge:
        yield edge


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [("203.0.113.7", 200), ("203.0.113.7, 10.1.2.3", 200), ("198.51.100.1", 401), ("203.0.113.7, 198.51.100.1", 401)],
)
async def test_only_proxies_are_believed(behind_a_proxy: Edge, edge: Edge, forwarded: str, expected: int) -> None:
    headers = {"authorization": "Bearer sk-proj-x", "x-forwarded-for": forwarded}
    for gateway, status in ((behind_a_proxy, expected), (edge, 401)):
        gateway.auth.principals["sk-proj-x"] = principal(ip_ranges=["203.0.113.0/24"])
        async with gateway.http() as http:
            assert (await http.get("/v1/models", headers=headers)).status_code == status
    # Who guesses keys is bounded by it.
    assert behind_a_proxy.auth.address == forwarded.split(", ")[0 if expected == 200 else -1]
    assert edge.auth.address == "127.0.0.1"


def call_from(peer: str | None, *headers: tuple[bytes, bytes]) -> Call:
    async def nothing(*_: object) -> Message:
        return {}

    scope = {"method": "GET", "path": "/", "headers": headers, "client": (peer, 1) if peer else None}
    return Call(scope, nothing, nothing)  # type: ignore[arg-type]


def test_a_header_in_several_lines_is_one() -> None:
    """A proxy may add a line of its own to what the client sent, and the next proxy another one."""
    lines = ((b"x-forwarded-for", b"203.0.113.7"), (b"host", b"x"), (b"x-forwarded-for", b"10.0.0.2"))
    assert Access(FakeAuth(), ["10.0.0.0/8"]).address(call_from("10.0.0.1", *lines)) == "203.0.113.7"


def test_an_address_that_is_none_is_in_no_range() -> None:
    access = Access(FakeAuth(), ["10.0.0.0/8"])
    assert access.address(call_from(None)) == ""
    assert access.address(call_from("::ffff:10.0.0.1", (b"x-forwarded-for", b"203.0.113.7"))) == "203.0.113.7"
    assert access.address(call_from("10.0.0.1", (b"x-forwarded-for", b"nonsense"))) == "nonsense"
    with pytest.raises(SettingsError):
        Access(FakeAuth(), ["10.0.0.0/99"])

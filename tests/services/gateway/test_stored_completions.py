"""Completions that are stored: what the official SDK sees of them, and what nobody else does."""

import json
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, NotFoundError

from modelplane.auth.v1.auth_pb2 import KEY_KIND_PROJECT, Principal
from modelplane.chat_inference.v1.chat_inference_pb2 import FINISH_REASON_STOP, Delta
from modelplane.completions.v1.completions_api import CompletionsService
from modelplane.tokenizer.v1.tokenizer_pb2 import Message
from modelplane.usage.v1.usage_pb2 import Usage
from services.completions.service import serving
from services.completions.settings import CompletionsSettings
from services.completions.store import CompletionsStore
from services.faults import Fault, Unavailable
from services.gateway.archive import UNSTORED, KeptChunks
from services.gateway.completions import Identity
from services.gateway.requests.chat import parse_chat
from services.gateway.settings import GatewaySettings
from services.storage import Database
from tests.services.gateway.conftest import ALIAS, MODEL, Edge, running_edge, until
from tests.services.gateway.schemas import assert_matches

HELLO: Any = [{"role": "user", "content": "hello there you"}]
TEXT = 'Hello, wörld\n"!"'
URL = "/v1/chat/completions"


async def store(edge: Edge, sdk: AsyncOpenAI, **fields: Any) -> str:
    """The id of a completion that is now stored."""
    answer = await sdk.chat.completions.create(**{"model": ALIAS, "messages": HELLO, "store": True, **fields})
    await until(lambda: answer.id in edge.completions.stored)
    return str(answer.id)


async def test_the_life_of_a_stored_completion(edge: Edge) -> None:
    await edge.add_replica()
    async with edge.sdk() as sdk:
        answer = await sdk.chat.completions.create(model=ALIAS, messages=HELLO, store=True, metadata={"k": "v"})
        await until(lambda: answer.id in edge.completions.stored)
        found = await sdk.chat.completions.retrieve(answer.id)
        assert found.to_dict() == {**answer.to_dict(), "metadata": {"k": "v"}}
        updated = await sdk.chat.completions.update(answer.id, metadata={"l": "w"})
        assert updated.to_dict() == {**answer.to_dict(), "metadata": {"l": "w"}}
        messages = (await sdk.chat.completions.messages.list(answer.id)).data
        assert [(one.id, str(one.role), one.content) for one in messages] == [
            (f"{answer.id}-0", "user", "hello there you")
        ]
        deleted = await sdk.chat.completions.delete(answer.id)
        assert deleted.to_dict() == {"object": "chat.completion.deleted", "id": answer.id, "deleted": True}
        with pytest.raises(NotFoundError):
            await sdk.chat.completions.retrieve(answer.id)


async def test_a_stream_is_stored_as_the_completion_that_it_was(edge: Edge) -> None:
    await edge.add_replica()
    async with edge.sdk() as sdk:
        stream = await sdk.chat.completions.create(model=MODEL, messages=HELLO, n=2, stream=True, store=True)
        chunks = [chunk async for chunk in stream]
        await until(lambda: chunks[0].id in edge.completions.stored)
        found = await sdk.chat.completions.retrieve(chunks[0].id)
    assert [choice.message.content for choice in found.choices] == [TEXT] * 2
    assert found.created == chunks[0].created and found.system_fingerprint == chunks[0].system_fingerprint
    assert found.usage and found.usage.completion_tokens == 10


async def test_what_is_not_asked_for_or_fails_is_not_stored(edge: Edge) -> None:
    replica = await edge.add_replica()
    async with edge.sdk() as sdk, edge.http() as http:
        await sdk.chat.completions.create(model=MODEL, messages=HELLO)
        replica.fails_after = 2
        for stream in (True, False):
            body = {"model": MODEL, "messages": HELLO, "store": True, "stream": stream}
            assert "engine_failed" in (await http.post(URL, json=body)).text
    await edge.gateway.drain()
    assert edge.completions.stored == {}


async def test_lists(edge: Edge) -> None:
    await edge.add_replica()
    async with edge.sdk() as sdk:
        ids = [await store(edge, sdk, metadata={"n": str(index), "all": "é"}) for index in range(3)]
        # The order is by creation.
        for index, name in enumerate(ids):
            edge.completions.stored[name].created_at_ms = index
        assert [one.id async for one in sdk.chat.completions.list()] == ids
        assert [one.id async for one in sdk.chat.completions.list(order="desc", limit=1)] == ids[::-1]
        assert [one.id async for one in sdk.chat.completions.list(after=ids[0], limit=2)] == ids[1:]
        assert [one.id async for one in sdk.chat.completions.list(metadata={"n": "1", "all": "é"})] == [ids[1]]
        assert [one.id async for one in sdk.chat.completions.list(model=MODEL)] == ids
        assert [one.id async for one in sdk.chat.completions.list(model="other")] == []
    async with edge.http() as http:
        page = (await http.get(URL, params={"limit": 2})).json()
        assert_matches("ChatCompletionList", page)
        assert (page["first_id"], page["last_id"], page["has_more"]) == (ids[0], ids[1], True)
        empty = (await http.get(URL, params={"model": "none"})).json()
        assert_matches("ChatCompletionList", empty)
        one = (await http.get(f"{URL}/{ids[0]}")).json()
        assert_matches("CreateChatCompletionResponse", one)
        assert one["metadata"] == {"n": "0", "all": "é"}
        assert_matches("ChatCompletionDeleted", (await http.delete(f"{URL}/{ids[0]}")).json())


MESSAGES: Any = [
    {"role": "system", "content": "be brief"},
    {
        "role": "user",
        "name": "ann",
        "content": [{"type": "text", "text": "hello"}, {"type": "text", "text": "\0 there"}],
    },
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "done"},
    {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
    {"role": "user", "content": "go"},
]


async def test_messages_are_shown_as_they_came(edge: Edge) -> None:
    await edge.add_replica()
    async with edge.sdk() as sdk, edge.http() as http:
        name = await store(edge, sdk, messages=MESSAGES)
        page = (await http.get(f"{URL}/{name}/messages")).json()
        assert list(page) == ["object", "data", "first_id", "last_id", "has_more"] and page["object"] == "list"
        system, user, caller, tool, refusal, _ = page["data"]
        empty = {"name": None, "refusal": None, "content_parts": None}
        assert system == {**empty, "id": f"{name}-0", "role": "system", "content": "be brief"}
        assert user["content_parts"] == MESSAGES[1]["content"]
        assert (user["name"], user["content"]) == ("ann", "hello\n\0 there")
        assert caller["tool_calls"] == MESSAGES[2]["tool_calls"] and caller["content"] is None
        assert (tool["tool_call_id"], tool["content"]) == ("call_1", "done")
        assert (refusal["refusal"], refusal["content"]) == ("no", None)
        listed = sdk.chat.completions.messages.list
        ids = [f"{name}-{index}" for index in range(6)]
        assert [one.id async for one in listed(name, limit=4)] == ids
        assert [one.id async for one in listed(name, limit=4, order="desc")] == ids[::-1]
        assert [one.id async for one in listed(name, after=ids[4])] == ids[5:]
        assert [one.id async for one in listed(name, after=ids[2], order="desc")] == ids[1::-1]
        for after in (f"{name}-6", f"{name}-01", f"{name}--1", f"{name}-{'9' * 5000}", f"x{ids[0]}", "0"):
            wrong = await http.get(f"{URL}/{name}/messages", params={"after": after})
            assert_refused(wrong, 400, "invalid_value", "after")


def assert_refused(response: httpx.Response, status: int, code: str, param: str | None) -> None:
    assert response.status_code == status, response.text
    assert_matches("ErrorResponse", response.json())
    error = response.json()["error"]
    assert (error["code"], error["param"]) == (code, param)


@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        ("limit=0", "integer_below_min_value", "limit"),
        ("limit=101", "integer_above_max_value", "limit"),
        ("limit=many", "invalid_type", "limit"),
        ("limit=" + "9" * 5000, "invalid_type", "limit"),
        ("order=up", "invalid_value", "order"),
        ("other=1", "unknown_parameter", "other"),
        ("&".join(f"metadata[{index}]=v" for index in range(17)), "object_above_max_properties", "metadata"),
        ("&".join(f"metadata[{index}]=v" for index in range(100)), "invalid_value", None),
        ("metadata[k]=" + "v" * 513, "string_above_max_length", "metadata.k"),
    ],
)
async def test_queries_that_are_wrong(edge: Edge, query: str, code: str, param: str | None) -> None:
    async with edge.http() as http:
        assert_refused(await http.get(f"{URL}?{query}"), 400, code, param)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "missing_required_parameter", "metadata"),
        ({"metadata": {}, "model": "x"}, "unknown_parameter", "model"),
        ({"metadata": {"k": 1}}, "invalid_type", "metadata.k"),
        ({"metadata": {"k" * 65: "v"}}, "string_above_max_length", "metadata"),
        ({"metadata": {"k": "v" * 513}}, "string_above_max_length", "metadata.k"),
        ({"metadata": {str(index): "" for index in range(17)}}, "object_above_max_properties", "metadata"),
    ],
)
async def test_updates_that_are_wrong(edge: Edge, body: Any, code: str, param: str) -> None:
    await edge.add_replica()
    async with edge.sdk() as sdk, edge.http() as http:
        name = await store(edge, sdk, metadata={"k": "v"})
        assert_refused(await http.post(f"{URL}/{name}", json=body), 400, code, param)
        assert (await http.get(f"{URL}/{name}")).json()["metadata"] == {"k": "v"}
        assert (await http.post(f"{URL}/{name}", json={"metadata": None})).json()["metadata"] == {}


async def test_what_is_of_others_is_not_there(edge: Edge) -> None:
    await edge.add_replica()
    others = {
        "sk-proj-other": Principal(organization_id="org-1", project_id="proj-2", kind=KEY_KIND_PROJECT),
        "sk-proj-else": Principal(organization_id="org-2", project_id="proj-3", kind=KEY_KIND_PROJECT),
    }
    edge.auth.principals.update(others)
    async with edge.sdk() as sdk, edge.http() as http:
        name = await store(edge, sdk)
        for key in others:
            headers = {"authorization": f"Bearer {key}"}
            for method, path in (("GET", ""), ("POST", ""), ("DELETE", ""), ("GET", "/messages")):
                seen = [
                    (await http.request(method, f"{URL}/{one}{path}", headers=headers, json={"metadata": {}}))
                    for one in (name, "chatcmpl-none")
                ]
                assert_refused(seen[0], 404, "completion_not_found", None)
                assert seen[0].text.replace(name, "chatcmpl-none") == seen[1].text
            assert (await http.get(URL, headers=headers)).json()["data"] == []
            assert (await http.get(URL, headers=headers, params={"after": name})).status_code == 404
        assert (await http.get(URL, headers={"authorization": ""})).status_code == 401
        assert (await sdk.chat.completions.retrieve(name)).id == name


async def test_methods_and_paths(edge: Edge) -> None:
    async with edge.http() as http:
        assert (await http.post(f"{URL}/x/messages")).headers["allow"] == "GET"
        assert (await http.put(f"{URL}/x")).headers["allow"] == "GET, POST, DELETE"
        assert (await http.get(f"{URL}/x/y/messages")).status_code == 404
        assert (await http.get(f"{URL}/a%00b")).status_code == 404


async def test_the_same_over_postgresql(database: Database) -> None:
    async with serving(CompletionsStore(database), CompletionsSettings()) as completions:

        class Kept(Edge):
            """With the real service in place of the fake."""

            def need(self, contract: type[Any]) -> object:
                return completions if contract is CompletionsService else super().need(contract)

        async with running_edge(kind=Kept) as edge, edge.sdk() as sdk:
            await edge.add_replica()
            chat, key = sdk.chat.completions, {"Idempotency-Key": "key"}
            asked: Any = {"model": MODEL, "messages": MESSAGES, "store": True, "metadata": {"nul": "\0"}}
            answers = [await chat.create(**asked, extra_headers=key) for _ in range(2)]
            assert answers[0] == answers[1]
            await edge.gateway._archive.finish()
            (found,) = [one async for one in chat.list(metadata={"nul": "\0"}, order="desc", limit=1)]
            assert found.to_dict() == {**answers[0].to_dict(), "metadata": {"nul": "\0"}}
            assert (await chat.update(found.id, metadata={"k": "v"})).metadata == {"k": "v"}
            assert [one.id async for one in chat.list(metadata={"k": "v"}, model=MODEL)] == [found.id]
            assert (await chat.messages.list(found.id)).data[1].content == "hello\n\0 there"
            await chat.delete(found.id)
            assert [one async for one in chat.list()] == []
        assert len(edge.billing.usages) == 1


async def test_storing_is_tried_again_and_waited_for(edge: Edge) -> None:
    await edge.add_replica()
    edge.completions.failure, edge.completions.failures = Unavailable("database_unavailable", "Away."), 2
    async with edge.sdk() as sdk:
        answer = await sdk.chat.completions.create(model=MODEL, messages=HELLO, store=True)
    await edge.gateway.drain()
    assert list(edge.completions.stored) == [answer.id]


@pytest.mark.parametrize(
    ("settings", "failure"),
    [
        (GatewaySettings(), Fault("object_too_large", "Too large.")),
        (GatewaySettings(store_timeout_s=0.01), Unavailable("database_unavailable", "Away.")),
        (GatewaySettings(max_storing_bytes=10), None),
    ],
)
async def test_what_cannot_be_stored_is_counted(settings: GatewaySettings, failure: Fault | None) -> None:
    before = UNSTORED._value.get()
    async with running_edge(settings) as edge:
        await edge.add_replica()
        edge.completions.failure, edge.completions.failures = failure, 1000
        async with edge.sdk() as sdk:
            answer = await sdk.chat.completions.create(model=MODEL, messages=HELLO, store=True)
        assert answer.choices[0].message.content == TEXT
        await edge.gateway.drain()
        assert edge.completions.stored == {}
    assert UNSTORED._value.get() == before + 1


async def test_closing_gives_up(edge: Edge) -> None:
    before = UNSTORED._value.get()
    await edge.add_replica()
    edge.completions.failure, edge.completions.failures = Unavailable("database_unavailable", "Away."), 1000
    async with edge.sdk() as sdk:
        await sdk.chat.completions.create(model=MODEL, messages=HELLO, store=True)
    await edge.gateway.close()
    assert UNSTORED._value.get() == before + 1


def test_calls_have_the_ids_that_were_streamed() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    body = {"model": MODEL, "messages": HELLO, "n": 2, "tools": [tool], "store": True}
    chat = parse_chat(json.dumps(body).encode())
    assert chat.messages == [Message(role="user", content="hello there you")]
    chunks = KeptChunks(Identity("chatcmpl-1", 1, MODEL, "fp"), chat, "hermes")
    call = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
    pieces = [call[:5], call[5:40], call[40:]]
    deltas = [Delta(index=index, text=piece) for piece in pieces for index in (1, 0)]
    deltas += [Delta(index=1, text=call), *(Delta(index=index, finish_reason=FINISH_REASON_STOP) for index in (0, 1))]
    written = b"".join(chunks.of([delta]) for delta in [*deltas, Delta(usage=Usage(output_tokens=3))])
    streamed: dict[int, list[str]] = {0: [], 1: []}
    for event in written.decode().split("\n\n")[:-1]:
        (choice,) = json.loads(event.removeprefix("data: "))["choices"]
        streamed[choice["index"]] += [one["id"] for one in choice["delta"].get("tool_calls", []) if "id" in one]
    completion = chunks.completion()
    kept = [[one["id"] for one in choice["message"]["tool_calls"]] for choice in completion["choices"]]
    assert [len(ids) for ids in kept] == [1, 2]
    assert kept == [streamed[0], streamed[1]]
    assert [choice["finish_reason"] for choice in completion["choices"]] == ["tool_calls"] * 2
